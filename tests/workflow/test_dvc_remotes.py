"""Raw files from real remotes on loopback: a folder, S3, SSH, HTTP; damaged, incomplete, killed, shared and gone.

All cases go through ``heterobench obtain``, which is what the workflow calls. `grains` has one source, a mirror that
most cases do without, so that every byte has to come from the remote.
"""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from heterobench.data.fetch import MIRROR
from heterobench.data.versioned import environment
from heterobench.files import file_digest
from heterobench.project import Project
from raw_files import (
    GRAINS,
    add_grains,
    contents,
    dvc,
    flipped,
    forget,
    git,
    git_changes,
    isolate,
    make_project,
    rot,
    set_remote,
)
from servers import HOST, BucketStore, FolderStore, free_port, s3, ssh, stalling_line, wait_for, web

pytestmark = pytest.mark.xdist_group("remotes")  # one set of servers

KINDS = ["local", "s3", "ssh", "http"]
SERVED = ["s3", "ssh", "http"]
ENOUGH = 600_000  # bytes of 1.7 million: the line stalls inside the largest file


@dataclass
class Remote:
    """How DVC reaches a remote, and its objects as whoever runs it sees them."""

    kind: str
    store: FolderStore | BucketStore
    port: int | None = None
    url: str = ""
    options: dict[str, str] = field(default_factory=dict)

    def use(self, project: Project, port: int | None = None) -> None:
        """Make it the default remote, through another port if one is given."""
        change = lambda text: text.replace(f":{self.port}", f":{port}") if port else text  # noqa: E731
        set_remote(project, change(self.url), **{key: change(value) for key, value in self.options.items()})


@dataclass
class Published:
    """A project whose data set was fetched once, and the objects of a remote that it was pushed to."""

    folder: Path
    mirror: Path
    objects: dict[str, bytes]

    def clone(self, folder: Path) -> Project:
        shutil.copytree(self.folder, folder)
        return Project(folder)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    home = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, home)
        project = make_project(home / "project")
        add_grains(project, home / "mirror")
        patch.setenv(MIRROR, str(home / "mirror"))
        assert obtain(project).returncode == 0
        set_remote(project, str(home / "store"))
        assert dvc(project, "push").returncode == 0
        git(project.root, "add", "-A")
        forget(project)
        store = FolderStore(home / "store")
        objects = {key: store.read(key) for key in store.names()}
        assert len(objects) == len(GRAINS) + 2  # the files, source.json and the list of all
        return Published(project.root, home / "mirror", objects)


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Starts the server of a kind when it is asked for first."""
    home = tmp_path_factory.mktemp("servers")
    started: dict[str, Remote] = {}
    with ExitStack() as stack:

        def start(kind: str) -> Remote:
            if kind not in started:
                started[kind] = make_remote(kind, home, stack)
            return started[kind]

        yield start


def make_remote(kind: str, home: Path, stack: ExitStack) -> Remote:
    folder = home / kind
    folder.mkdir()
    if kind == "s3":
        port, bucket = stack.enter_context(s3())
        keys = {"access_key_id": "key", "secret_access_key": "secret", "region": "us-east-1"}
        return Remote(kind, bucket, port, "s3://store", keys | {"endpointurl": f"http://{HOST}:{port}"})
    if kind == "ssh":
        port, key = stack.enter_context(ssh(home / "sshd"))
        return Remote(kind, FolderStore(folder), port, f"ssh://{HOST}:{port}{folder}", {"keyfile": str(key)})
    if kind == "http":
        port = stack.enter_context(web(folder))
        return Remote(kind, FolderStore(folder), port, f"http://{HOST}:{port}")
    return Remote(kind, FolderStore(folder), None, str(folder))


@pytest.fixture
def isolated(tmp_path, monkeypatch):
    isolate(monkeypatch, tmp_path)
    return tmp_path


@pytest.fixture
def project(isolated, published) -> Project:
    """A fresh clone: nothing in data/raw, nothing in the cache, no source to fetch from."""
    return published.clone(isolated / "project")


@pytest.fixture
def remote(request, servers, published, project) -> Remote:
    """The remote of one kind with all objects in it, as the project's default."""
    remote = servers(request.param)
    for key in remote.store.names():
        remote.store.delete(key)
    for key, data in published.objects.items():
        remote.store.write(key, data)
    remote.use(project)
    return remote


def kinds(names, fast=()):
    """Parametrise with remotes of these kinds; all but the `fast` ones are slow."""
    marks = [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in names]
    return pytest.mark.parametrize("remote", marks, indirect=True)


def start(project: Project) -> subprocess.Popen:
    """``heterobench obtain grains`` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "heterobench.cli", "obtain", "grains"],
        cwd=project.root,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=open(project.root.parent / f"log-{len(list(project.root.parent.glob('log-*')))}", "w"),
        start_new_session=True,
    )


def log(project: Project, number: int) -> str:
    return (project.root.parent / f"log-{number}").read_text()


def obtain(project: Project) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "heterobench.cli", "obtain", "grains"],
        cwd=project.root,
        env=environment(),
        text=True,
        capture_output=True,
        timeout=240,
    )


def assert_whole(project: Project, published: Published) -> None:
    """Exactly the published files, with the checksums of the mirror, and nothing that git would see."""
    found = contents(project, "grains")
    assert set(found) == {*GRAINS, "source.json"}
    for path in GRAINS:
        assert file_digest(project.raw("grains") / path) == file_digest(published.mirror / "grains" / path)
    assert git_changes(project) == ""
    temporary = [path for path in project.raw("grains").parent.iterdir() if path.suffix != ".lock"]
    assert [path.name for path in temporary] == ["grains"]


def assert_nothing(project: Project) -> None:
    assert contents(project, "grains") == {}
    assert git_changes(project) == ""


def object_of(published: Published, path: str) -> str:
    """The object of a remote that holds a file of the set."""
    data = (published.mirror / "grains" / path).read_bytes()
    return next(key for key, stored in published.objects.items() if stored == data)


def md5_of(key: str) -> str:
    return "".join(key.split("/")[-2:])


@kinds(KINDS, fast=["http"])
def test_pull_into_a_fresh_clone(remote, project, published):
    done = obtain(project)
    assert done.returncode == 0, done.stderr
    assert "Running stage" not in done.stderr
    assert_whole(project, published)


@pytest.mark.slow
@pytest.mark.parametrize("remote", ["local", "s3", "ssh"], indirect=True)
def test_push_gives_the_same_objects_everywhere(remote, project, published, monkeypatch):
    for key in remote.store.names():
        remote.store.delete(key)
    monkeypatch.setenv(MIRROR, str(published.mirror))
    first = obtain(project)  # an empty remote is no obstacle
    assert first.returncode == 0, first.stderr
    assert "remote store has no intact copy of grains" in first.stderr
    pushed = dvc(project, "push")
    assert pushed.returncode == 0, pushed.stderr
    assert {key: remote.store.read(key) for key in remote.store.names()} == published.objects
    monkeypatch.delenv(MIRROR)
    forget(project)
    assert obtain(project).returncode == 0
    assert_whole(project, published)


@pytest.mark.slow
@pytest.mark.parametrize("remote", ["http"], indirect=True)
def test_a_static_web_server_takes_no_pushes(remote, project, published, monkeypatch):
    monkeypatch.setenv(MIRROR, str(published.mirror))
    for key in remote.store.names():
        remote.store.delete(key)
    assert obtain(project).returncode == 0
    pushed = dvc(project, "push")
    assert pushed.returncode != 0
    assert remote.store.names() == []


@pytest.mark.parametrize("damage", ["altered", "missing", "truncated"])
@kinds(KINDS)
def test_a_damaged_object(remote, project, published, damage, monkeypatch):
    key = object_of(published, "coarse.bin")
    data = remote.store.read(key)
    if damage == "missing":
        remote.store.delete(key)
    else:
        remote.store.write(key, flipped(data) if damage == "altered" else data[: len(data) // 2])

    # Without a source: an error that names the object and the way out, and no file at all.
    refused = obtain(project)
    assert refused.returncode == 1
    listing = next(key for key in published.objects if key.endswith(".dir"))
    named = [listing] if damage == "missing" else [listing, key]
    message = f"has no intact copy of grains (missing or damaged there, or out of reach: {', '.join(named)})"
    assert message in refused.stderr, refused.stderr
    if damage == "missing":
        assert f"failed to transfer '{md5_of(key)}'" in refused.stderr
    assert "heterobench: data set grains cannot be obtained" in refused.stderr
    assert f"set {MIRROR} to a folder or URL prefix" in refused.stderr
    assert_nothing(project)

    # With one: whole files, and what to do about the remote.
    monkeypatch.setenv(MIRROR, str(published.mirror))
    repaired = obtain(project)
    assert repaired.returncode == 0, repaired.stderr
    assert_whole(project, published)
    advice = repaired.stderr.split("To repair remote store: delete there what exists of ")[1].split(" (DVC")[0]
    assert advice.split(", ") == named

    # The advice works (a web server's folder is filled by whoever owns it).
    monkeypatch.delenv(MIRROR)
    for name in set(advice.split(", ")) & set(remote.store.names()):
        remote.store.delete(name)
    if remote.kind == "http":
        set_remote(project, str(remote.store.folder))
    pushed = dvc(project, "push", "fetch@grains")
    assert pushed.returncode == 0, pushed.stderr
    assert {key: remote.store.read(key) for key in remote.store.names()} == published.objects
    remote.use(project)
    forget(project)
    again = obtain(project)
    assert again.returncode == 0, again.stderr
    assert "Running stage" not in again.stderr
    assert_whole(project, published)


@pytest.mark.slow
@pytest.mark.parametrize("remote", ["local"], indirect=True)
def test_an_altered_raw_file_is_replaced_from_the_remote(remote, project, published):
    """DVC looks at sizes and times: by itself it would call this file up to date."""
    assert obtain(project).returncode == 0
    rot(project.raw("grains") / "medium.bin")
    shutil.rmtree(project.root / ".dvc" / "cache")
    done = obtain(project)
    assert done.returncode == 0, done.stderr
    assert "data/raw/grains/medium.bin: altered: expected sha256" in done.stderr
    assert "Obtaining grains anew." in done.stderr
    assert "Running stage" not in done.stderr
    assert_whole(project, published)


@pytest.mark.slow
@pytest.mark.parametrize("remote", ["local"], indirect=True)
def test_a_remote_that_has_an_older_edition(remote, project, published, monkeypatch, isolated):
    """Git brought new checksums, dvc.lock and the remote are of before: the pull succeeds, and its files are wrong."""
    shutil.copytree(published.mirror, isolated / "mirror")
    add_grains(project, isolated / "mirror", edition=2)
    refused = obtain(project)
    assert refused.returncode == 1
    assert "remote store has no intact copy of grains: running the stage fetch@grains" in refused.stderr
    assert contents(project, "grains") == {}
    monkeypatch.setenv(MIRROR, str(isolated / "mirror"))
    done = obtain(project)
    assert done.returncode == 0, done.stderr
    for path in GRAINS:
        assert (project.raw("grains") / path).read_bytes() == (isolated / "mirror" / "grains" / path).read_bytes()


@kinds(["http"], fast=["http"])
def test_an_altered_object_is_refused_and_nothing_of_the_set_stays(remote, project, published):
    key = object_of(published, "medium.bin")
    remote.store.write(key, flipped(remote.store.read(key)))
    refused = obtain(project)
    assert refused.returncode == 1
    assert f"{key}): running the stage fetch@grains" in refused.stderr, refused.stderr
    assert "heterobench: data set grains cannot be obtained" in refused.stderr
    assert_nothing(project)


@kinds(SERVED, fast=["http"])
def test_a_killed_pull_is_completed_by_the_next_one(remote, project, published):
    with stalling_line(remote.port, ENOUGH) as line:
        remote.use(project, line.port)
        killed = start(project)
        assert line.stalled.wait(120), log(project, 0)
        assert killed.poll() is None
        os.killpg(killed.pid, signal.SIGKILL)  # DVC as well, as the kernel or a batch system would
        assert killed.wait(timeout=30) == -signal.SIGKILL
        assert contents(project, "grains").keys() != {*GRAINS, "source.json"}
    remote.use(project)
    done = obtain(project)
    assert done.returncode == 0, done.stderr
    assert "Running stage" not in done.stderr
    assert_whole(project, published)


@pytest.mark.slow
@pytest.mark.parametrize("remote", ["local"], indirect=True)
def test_a_killed_copy_from_a_folder_is_completed_by_the_next_one(remote, project, published):
    killed = start(project)
    cache = project.root / ".dvc" / "cache" / "files"
    wait_for(lambda: cache.exists() or killed.poll() is not None, what="the first object")
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait(timeout=30) == -signal.SIGKILL
    assert contents(project, "grains").keys() != {*GRAINS, "source.json"}
    done = obtain(project)
    assert done.returncode == 0, done.stderr
    assert "Running stage" not in done.stderr
    assert_whole(project, published)


@pytest.mark.slow
@pytest.mark.parametrize("remote", SERVED, indirect=True)
def test_when_only_the_caller_is_killed_the_next_one_waits_for_its_dvc(remote, project, published):
    with stalling_line(remote.port, ENOUGH) as line:
        remote.use(project, line.port)
        killed = start(project)
        assert line.stalled.wait(120), log(project, 0)
        killed.kill()
        killed.wait(timeout=30)
        second = start(project)
        with pytest.raises(subprocess.TimeoutExpired):  # DVC holds its lock: no second one works beside it
            second.wait(timeout=15)
        line.released.set()
        assert second.wait(timeout=120) == 0, log(project, 1)
    assert "no intact copy" not in log(project, 1)
    assert_whole(project, published)


@kinds(SERVED)
def test_two_pulls_at_once(remote, project, published):
    with stalling_line(remote.port, ENOUGH) as line:
        remote.use(project, line.port)
        first = start(project)
        assert line.stalled.wait(120), log(project, 0)
        second = start(project)
        wait_for(lambda: "another process is obtaining grains: waiting for it" in log(project, 1), what="the message")
        line.released.set()
        assert first.wait(timeout=120) == 0, log(project, 0)
        assert second.wait(timeout=120) == 0, log(project, 1)
    assert_whole(project, published)
    assert "Running stage" not in log(project, 0) + log(project, 1)


@pytest.mark.slow
@pytest.mark.parametrize("remote", ["local"], indirect=True)
def test_two_clones_that_share_a_cache_pull_at_once(remote, project, published, isolated):
    other = published.clone(isolated / "other" / "project")
    for each in (project, other):
        remote.use(each)
        with (each.root / ".dvc" / "config.local").open("a") as stream:
            stream.write(f"[cache]\n    dir = {isolated / 'cache'}\n")
    both = [start(each) for each in (project, other)]
    for each, process in zip((project, other), both, strict=True):
        assert process.wait(timeout=120) == 0, log(each, 0)
        assert_whole(each, published)


@pytest.mark.slow
@pytest.mark.parametrize("remote", SERVED, indirect=True)
def test_a_remote_that_hangs_up_in_the_middle(remote, project, published, monkeypatch):
    """Each connection ends after some bytes: S3's client asks for the rest, the others give up; never half a file."""
    monkeypatch.setenv(MIRROR, str(published.mirror))
    with stalling_line(remote.port, ENOUGH) as line:
        line.hangs_up = True
        remote.use(project, line.port)
        done = obtain(project)
    assert done.returncode == 0, done.stderr
    assert ("running the stage fetch@grains" in done.stderr) == (remote.kind != "s3")
    assert_whole(project, published)


@pytest.mark.slow
@pytest.mark.parametrize("remote", SERVED, indirect=True)
def test_a_server_that_is_down(remote, project, published, monkeypatch):
    remote.use(project, free_port())
    refused = obtain(project)
    assert refused.returncode == 1
    assert "heterobench: data set grains cannot be obtained" in refused.stderr
    assert_nothing(project)
    monkeypatch.setenv(MIRROR, str(published.mirror))
    assert obtain(project).returncode == 0
    assert_whole(project, published)

    # What is here already needs no remote.
    monkeypatch.delenv(MIRROR)
    assert obtain(project).returncode == 0
    shutil.rmtree(project.root / "data")
    assert obtain(project).returncode == 0
    assert_whole(project, published)
