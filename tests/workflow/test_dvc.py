"""Raw files through DVC: pushed, deleted, pulled, damaged, in a small project of its own."""

import configparser
import shutil

import pytest

from heterobench.data.fetch import MIRROR
from heterobench.data.prepare import prepare
from heterobench.data.versioned import obtain, ready
from heterobench.errors import ConfigurationError, DataError
from heterobench.project import Project
from raw_files import REPOSITORY, contents, dvc, flip, forget, git_changes, isolate, make_project, rot, set_remote


@pytest.fixture
def home(tmp_path, monkeypatch):
    isolate(monkeypatch, tmp_path)
    return tmp_path


@pytest.fixture
def project(home) -> Project:
    return make_project(home / "project", "digits")


def test_settings():
    config = configparser.ConfigParser()
    config.read(REPOSITORY / ".dvc" / "config")
    assert dict(config["core"]) == {"analytics": "false", "check_update": "false", "autostage": "false"}
    assert config.sections() == ["core"]  # remotes belong to users


def test_push_forget_pull_and_a_damaged_remote(project, home, capfd):
    # Without a remote the stage runs; the outputs are those that dvc.lock records.
    assert "core.remote" not in ready(project)
    source = obtain(project, "digits")
    first = contents(project, "digits")
    assert source.name in first
    assert set(first) == {"digits.csv.gz", "source.json"}
    assert git_changes(project) == ""
    assert "Running stage 'fetch@digits'" in capfd.readouterr().err

    # The local cache restores deleted data without running the stage.
    shutil.rmtree(project.root / "data")
    obtain(project, "digits")
    assert contents(project, "digits") == first
    assert "Running stage" not in capfd.readouterr().err

    # Push, delete data and cache, pull: same files, and the stage does not run.
    set_remote(project, str(home / "store"))
    assert dvc(project, "push").returncode == 0
    forget(project)
    obtain(project, "digits")
    assert contents(project, "digits") == first
    assert "Running stage" not in capfd.readouterr().err

    # One flipped byte in the remote: the pull is refused, and the stage puts it right.
    forget(project)
    for path in (home / "store").rglob("*"):
        if path.is_file() and path.stat().st_size == len(first["digits.csv.gz"]):
            flip(path)
    pull = dvc(project, "pull", "fetch@digits")
    assert pull.returncode != 0
    assert not project.raw("digits").exists()
    obtain(project, "digits")
    assert contents(project, "digits") == first
    messages = capfd.readouterr().err
    damaged = "files/md5/9b/335364a7bfd63947c7480a5bd51f2d"  # of digits.csv.gz, as dvc.lock has it
    assert (
        "remote store has no intact copy of digits (missing or damaged there, or out of reach: files/md5/" in messages
    )
    assert f", {damaged}): running the stage fetch@digits" in messages
    assert git_changes(project) == ""
    prepare(project, "digits")

    # A remote that is gone does not stop anybody either.
    forget(project)
    shutil.rmtree(home / "store")
    obtain(project, "digits")
    assert contents(project, "digits") == first


def test_a_damaged_cache_is_not_believed(project):
    obtain(project, "digits")
    first = contents(project, "digits")
    shutil.rmtree(project.root / "data")
    for path in (project.root / ".dvc" / "cache").rglob("*"):
        if path.is_file() and path.stat().st_size == len(first["digits.csv.gz"]):
            flip(path)
    obtain(project, "digits")
    assert contents(project, "digits") == first


def test_a_data_set_without_a_line_in_dvc_yaml_is_refused(project):
    shutil.copy(project.params / "datasets" / "digits.yaml", project.params / "datasets" / "numbers.yaml")
    with pytest.raises(ConfigurationError) as error:
        obtain(project, "numbers")
    assert str(error.value) == (
        "dvc.yaml: no stage fetch@numbers. What to do: add the line `- numbers` below stages.fetch.foreach"
    )
    (project.root / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(ConfigurationError, match=r"dvc\.yaml: no list stages\.fetch\.foreach of data sets"):
        obtain(project, "digits")


def test_the_advice_for_a_damaged_raw_file_works(project, capfd):
    obtain(project, "digits")
    first = contents(project, "digits")
    rot(project.raw("digits") / "digits.csv.gz")
    refused = r"data/raw/digits/digits\.csv\.gz: altered: expected sha256 .* found .*`heterobench obtain digits`"
    with pytest.raises(DataError, match=refused):
        prepare(project, "digits")
    capfd.readouterr()
    obtain(project, "digits")
    assert contents(project, "digits") == first
    messages = capfd.readouterr().err
    assert "data/raw/digits/digits.csv.gz: altered" in messages
    assert "Obtaining digits anew." in messages
    assert "Running stage" not in messages  # the cache has it
    prepare(project, "digits")


def test_a_remote_that_does_not_verify_is_refused(project, home):
    set_remote(project, str(home / "store"), verify="false")
    with pytest.raises(ConfigurationError) as error:
        obtain(project, "digits")
    assert "dvc remote modify --local store verify true" in str(error.value)
    assert dvc(project, "remote", "modify", "--local", "store", "verify", "true").returncode == 0
    assert ready(project)["core.remote"] == "store"


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
