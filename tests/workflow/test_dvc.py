"""Raw files through DVC: pushed, deleted, pulled, damaged, in a small project of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from heterobench.data.fetch import MIRROR
from heterobench.data.prepare import prepare
from heterobench.data.versioned import default_remote, environment, obtain
from heterobench.errors import ConfigurationError, DataError
from heterobench.project import Project

REPOSITORY = Path(__file__).resolve().parents[2]


def dvc(project: Project, *arguments: str) -> subprocess.CompletedProcess:
    """Run DVC as a user would."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=project.root, env=environment(), text=True, capture_output=True)


def make_project(root: Path, name: str) -> Project:
    """A clone of the repository as far as one data set is concerned, with its entry in dvc.lock."""
    for path in ("params/config.yaml", f"params/datasets/{name}.yaml", ".gitignore", ".dvcignore"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / path, root / path)
    (root / ".dvc").mkdir()
    for path in ("config", ".gitignore"):
        shutil.copy(REPOSITORY / ".dvc" / path, root / ".dvc" / path)
    yaml = YAML()
    for path in ("dvc.yaml", "dvc.lock"):
        content = yaml.load(REPOSITORY / path)
        content["stages"] = {stage: entry for stage, entry in content["stages"].items() if stage == f"fetch-{name}"}
        yaml.dump(content, root / path)
    subprocess.run(["git", "init", "-q", "."], cwd=root, check=True)
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    return Project(root)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """No settings of the user's DVC, and no mirror, reach a test."""
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "dvc-user"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "dvc-system"))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "dvc-site"))
    monkeypatch.delenv(MIRROR, raising=False)
    monkeypatch.delenv("HETEROBENCH_ROOT", raising=False)
    return tmp_path


@pytest.fixture
def project(home) -> Project:
    return make_project(home / "project", "digits")


def add_remote(project: Project, folder: Path, verify: bool = True) -> None:
    assert dvc(project, "remote", "add", "--local", "--default", "store", str(folder)).returncode == 0
    if verify:
        assert dvc(project, "remote", "modify", "--local", "store", "verify", "true").returncode == 0


def contents(project: Project) -> dict[str, bytes]:
    folder = project.raw("digits")
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def forget(project: Project) -> None:
    shutil.rmtree(project.root / "data")
    shutil.rmtree(project.root / ".dvc" / "cache")


def flip(path: Path) -> None:
    os.chmod(path, 0o644)  # DVC protects what it stores
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def git_changes(project: Project) -> str:
    command = ["git", "status", "--short", "--untracked-files=all"]
    listing = subprocess.run(command, cwd=project.root, text=True, capture_output=True, check=True).stdout
    return "".join(line for line in listing.splitlines(True) if not line.startswith("A  "))


def test_settings():
    import configparser

    config = configparser.ConfigParser()
    config.read(REPOSITORY / ".dvc" / "config")
    assert dict(config["core"]) == {"analytics": "false", "check_update": "false", "autostage": "false"}
    assert config.sections() == ["core"]  # remotes belong to users


def test_push_forget_pull_and_a_damaged_remote(project, home, capfd):
    # Without a remote the stage runs; the outputs are those that dvc.lock records.
    assert default_remote(project) is None
    source = obtain(project, "digits")
    first = contents(project)
    assert source.name in first
    assert set(first) == {"digits.csv.gz", "source.json"}
    assert git_changes(project) == ""
    assert "Running stage 'fetch-digits'" in capfd.readouterr().err

    # The local cache restores deleted data without running the stage.
    shutil.rmtree(project.root / "data")
    obtain(project, "digits")
    assert contents(project) == first
    assert "Running stage" not in capfd.readouterr().err

    # Push, delete data and cache, pull: same files, and the stage does not run.
    add_remote(project, home / "store")
    assert dvc(project, "push").returncode == 0
    forget(project)
    obtain(project, "digits")
    assert contents(project) == first
    assert "Running stage" not in capfd.readouterr().err

    # One flipped byte in the remote: the pull is refused, and the stage puts it right.
    forget(project)
    for path in (home / "store").rglob("*"):
        if path.is_file() and path.stat().st_size == len(first["digits.csv.gz"]):
            flip(path)
    pull = dvc(project, "pull", "fetch-digits")
    assert pull.returncode != 0
    assert "digits.csv.gz" in pull.stderr
    assert "digits.csv.gz" not in contents(project)
    obtain(project, "digits")
    assert contents(project) == first
    messages = capfd.readouterr().err
    assert "remote store has no intact copy of digits: running the stage fetch-digits" in messages
    assert git_changes(project) == ""
    prepare(project, "digits")

    # A remote that is gone does not stop anybody either.
    forget(project)
    shutil.rmtree(home / "store")
    obtain(project, "digits")
    assert contents(project) == first


def test_a_damaged_cache_is_not_believed(project):
    obtain(project, "digits")
    first = contents(project)
    shutil.rmtree(project.root / "data")
    for path in (project.root / ".dvc" / "cache").rglob("*"):
        if path.is_file() and path.stat().st_size == len(first["digits.csv.gz"]):
            flip(path)
    obtain(project, "digits")
    assert contents(project) == first


def test_the_advice_for_a_damaged_raw_file_works(project):
    obtain(project, "digits")
    first = contents(project)
    flip(project.raw("digits") / "digits.csv.gz")
    with pytest.raises(DataError, match=r"data/raw/digits/digits\.csv\.gz: altered: expected sha256 .* found"):
        prepare(project, "digits")
    (project.raw("digits") / "digits.csv.gz").unlink()
    assert dvc(project, "repro", "--single-item", "fetch-digits").returncode == 0
    assert contents(project) == first
    prepare(project, "digits")


def test_a_remote_that_does_not_verify_is_refused(project, home):
    add_remote(project, home / "store", verify=False)
    with pytest.raises(ConfigurationError) as error:
        obtain(project, "digits")
    assert "dvc remote modify --local store verify true" in str(error.value)
    assert dvc(project, "remote", "modify", "--local", "store", "verify", "true").returncode == 0
    assert default_remote(project) == "store"


def test_without_mirror_and_network_the_reason_is_said_and_nothing_stays(home, monkeypatch, capfd):
    project = make_project(home / "project", "mnist")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody answers there: no test reaches the network
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    (home / "mirror" / "mnist").mkdir(parents=True)
    (home / "mirror" / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"something else")
    monkeypatch.setenv(MIRROR, str(home / "mirror"))
    with pytest.raises(DataError, match="data set mnist cannot be obtained"):
        obtain(project, "mnist")
    messages = capfd.readouterr().err
    assert "warning: train-images-idx3-ubyte.gz from mirror mnist/train-images-idx3-ubyte.gz: truncated" in messages
    assert "expected sha256 440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609" in messages
    assert "found 14 bytes with sha256" in messages
    assert f"set {MIRROR} to a folder or URL prefix" in messages
    assert not project.raw("mnist").exists()
    assert git_changes(project) == ""
    with pytest.raises(ConfigurationError, match="did you mean 'mnist'"):
        obtain(project, "minst")
