"""Data in checkouts as users have them: without git, of another owner, with data on another disk, half configured."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from heterobench.data.versioned import environment, obtain, ready
from heterobench.errors import ConfigurationError, DataError
from heterobench.files import file_digest
from heterobench.project import Project
from raw_files import REPOSITORY, git, isolate, make_project

DIGITS = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"  # the file that scikit-learn has


def slow(state):
    return pytest.param(state, marks=pytest.mark.slow)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    isolate(monkeypatch, tmp_path)
    return make_project(tmp_path / "project", "digits")


def files(folder):
    """Everything that a user would see change, outside of what DVC and we keep for ourselves."""
    own = (".dvc/tmp", ".dvc/cache", "data", ".git/")
    paths = [path for path in folder.rglob("*") if path.is_file()]
    named = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return {name: content for name, content in named.items() if not name.startswith(own)}


@pytest.mark.parametrize(
    "state", ["no git", "data/raw elsewhere", *(slow(state) for state in ("another owner", "data elsewhere"))]
)
def test_data_are_obtained_whatever_the_checkout_is(project, tmp_path, monkeypatch, state):
    if state == "no git":
        shutil.rmtree(project.root / ".git")
    elif state == "another owner":
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for this state
    else:
        (tmp_path / "disk").mkdir()
        link = project.root / state.split()[0]
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(tmp_path / "disk")
    before = files(project.root)
    obtain(project, "digits")
    assert file_digest(project.raw("digits") / "digits.csv.gz") == DIGITS
    assert files(project.root) == before
    if "elsewhere" in state:
        assert list((tmp_path / "disk").rglob("digits.csv.gz"))


def test_links_of_the_project_to_another_disk_are_ignored_by_git():
    """`/data/` in .gitignore would be a folder alone: with a link, every record would say that there are changes."""
    names = ("data", "results", "scores", ".snakemake", ".venv", "mlruns")
    ignored = set((REPOSITORY / ".gitignore").read_text().splitlines())
    assert {f"/{name}" for name in names} <= ignored


def test_a_link_to_a_disk_that_is_not_mounted(project, tmp_path):
    (project.root / "data").symlink_to(tmp_path / "not-mounted")
    with pytest.raises(
        DataError, match=r"data/raw: .*data is a link to .*/not-mounted, which is not there. What to do"
    ):
        obtain(project, "digits")
    assert not (tmp_path / "not-mounted").exists()


def test_a_file_where_a_folder_should_be(project):
    (project.root / "data").write_text("x")
    with pytest.raises(DataError, match=r"data/raw: .*/data is a file where a folder should be. What to do: move it"):
        obtain(project, "digits")


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare, of util-linux")
def test_a_folder_that_cannot_be_written_is_named(project):
    """Another number than the owner's, inside a user namespace, so that root is refused as well."""
    user = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    if subprocess.run([*user, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    project.raw("any").parent.mkdir(parents=True)
    project.raw("any").parent.chmod(0o555)
    code = "from heterobench.cli import main; main(['obtain', 'digits'])"
    run = subprocess.run([*user, sys.executable, "-c", code], cwd=project.root, capture_output=True, text=True)
    project.raw("any").parent.chmod(0o755)
    assert "heterobench: data/raw: cannot be written by user 54321: Permission denied. What to do:" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_lists_of_locks_that_a_kill_left(project):
    """A cut one, and one of a process that is gone."""
    locks = project.root / ".dvc" / "tmp" / "rwlock"
    with subprocess.Popen(["true"]) as gone:
        pass
    holder = {str(project.raw("digits")): {"pid": gone.pid, "cmd": "dvc repro"}}
    for content in ('{"write": {"', json.dumps({"write": holder})):
        locks.parent.mkdir(exist_ok=True)
        locks.write_text(content)
        obtain(project, "digits")
        assert file_digest(project.raw("digits") / "digits.csv.gz") == DIGITS
        shutil.rmtree(project.raw("digits"))


def test_what_dvc_lacks_is_said_before_it_is_called(project, monkeypatch, tmp_path):
    settings = project.root / ".dvc" / "config.local"
    settings.write_text("[core]\n    remote = nowhere\n")
    with pytest.raises(ConfigurationError, match=r"core\.remote: no remote 'nowhere' is there.*--unset core\.remote"):
        ready(project)
    settings.write_text("[core\n")
    with pytest.raises(ConfigurationError, match=r"Invalid line.*What to do: correct .dvc/config, or"):
        ready(project)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python3.99"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="PATH: no command `python`"):
        ready(project)
    (project.root / ".dvc" / "config").unlink()
    with pytest.raises(ConfigurationError, match=r"\.dvc/config: no such file.*What to do: copy the folder .dvc"):
        ready(project)


def test_settings_of_the_whole_system_still_count(project, monkeypatch, tmp_path):
    """Our calls bring a setting of their own on that level."""
    (tmp_path / "etc").mkdir()
    remote = f"['remote \"shared\"']\n    url = {tmp_path}/shared  # a folder\n    verify = true\n"
    (tmp_path / "etc" / "config").write_text(f"{remote}[core]\n    remote = shared\n")
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "etc"))
    plain = [sys.executable, "-m", "dvc", "config", "--list"]
    told = subprocess.run(plain, cwd=project.root, env=environment(), capture_output=True, text=True).stdout
    assert f"remote.shared.url={ready(project)['remote.shared.url']}" in told.splitlines()
    assert git(project.root, "status", "--porcelain", "--untracked-files=all").count("??") == 0
    assert os.listdir(tmp_path / "etc") == ["config"]
