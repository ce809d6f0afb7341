"""The progress view, over real files and through real pipes and terminals."""

import io
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from heterobench.commands import watch
from heterobench.files import write_json
from heterobench.project import Project
from heterobench.records.record import encode, seal

CODE = (
    "import sys; from pathlib import Path; from heterobench.project import Project\n"
    "from heterobench.commands.watch import watch\n"
    "watch(Project(Path(sys.argv[1])), once='once' in sys.argv, interval=0.05)"
)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "config.yaml").write_text("benchmarks: []\n")
    return Project(tmp_path)


def write_progress(project, arm="fedavg", seed=0, round=3, status="running", value=0.5, **more):
    folder = project.run("label-skew", "mini", "digits.iid.mlp.full", arm, seed)
    row = {"run_id": "0" * 16, "benchmark": "label-skew", "preset": "mini", "scenario": "digits.iid.mlp.full"}
    row |= {"arm": arm, "seed": seed, "round": round, "rounds": 10, "status": status, "pid": os.getpid()}
    row |= {"metric": {"name": "validation_accuracy", "value": value}, "host": socket.gethostname()}
    row |= {"seconds": 30.0, "seconds_left": 70.0, "updated": time.time()}
    write_json(folder / "progress.json", encode(row | more))
    return folder


def once(project):
    stream = io.StringIO()
    watch.watch(project, once=True, stream=stream)
    return stream.getvalue()


def ended_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_once_shows_each_run_and_the_sum(project):
    write_progress(project)
    write_progress(project, "scaffold", 1, round=10, status="finished")
    write_progress(project, "feddyn", 2, round=4, status="failed", value=float("nan"))
    text = once(project)
    scenario = "label-skew/mini digits.iid.mlp.full"
    assert f"{scenario} fedavg seed 0  round 3/10  validation_accuracy 0.5000  1 min 10 s left  running\n" in text
    assert f"{scenario} scaffold seed 1  round 10/10  validation_accuracy 0.5000  finished\n" in text
    assert f"{scenario} feddyn seed 2  round 4/10  validation_accuracy nan  failed\n" in text
    assert text.endswith("1 finished, 1 running, 1 failed\n")


def test_nothing_there_yet(project):
    assert once(project) == "0 finished\n"


def test_piped_output_has_one_plain_line_for_each_change(project):
    write_progress(project, round=1)
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, project.root],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color"},
    )
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        write_progress(project, round=2)
        lines.append(process.stdout.readline())
        folder = write_progress(project, round=10, status="finished")
        lines += [process.stdout.readline(), process.stdout.readline()]
    finally:
        process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=90)
    assert process.returncode == 0
    assert rest == b""
    text = b"".join(lines).decode()
    assert re.findall(r"round (\d+)/10|(\d finished)", text) == [
        ("1", ""),
        ("", "0 finished"),
        ("2", ""),
        ("10", ""),
        ("", "1 finished"),
    ]
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\x9b]", text)
    assert folder.is_dir()


def test_terminal_shows_a_table_that_moves(project):
    write_progress(project)
    control, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, project.root],
        stdout=terminal,
        stderr=terminal,
        stdin=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "20"},
    )
    os.close(terminal)
    text = read_until(control, "3/10")
    write_progress(project, round=4)
    text += read_until(control, "4/10")
    process.send_signal(signal.SIGINT)
    assert process.wait(90) == 0
    os.close(control)
    assert "scenario" in text
    assert "━" in text
    assert "running" in text


def read_until(control, wanted, seconds=90):
    text, until = "", time.monotonic() + seconds
    while wanted not in text:
        assert time.monotonic() < until, text
        text += os.read(control, 65536).decode(errors="replace")
    return text


def test_table_fits_the_terminal(project):
    from rich.console import Console

    for seed in range(40):
        write_progress(project, seed=seed, status="running" if seed == 30 else "finished", round=seed % 10)
    console = Console(file=io.StringIO(), width=120, height=12)
    rows = watch.read_progress(project.results, {})
    console.print(watch.table(rows, time.time(), None, console.height))
    lines = console.file.getvalue().splitlines()
    assert len(lines) <= 12
    # What runs stands first, whatever its name.
    assert "running" in lines[1]
    assert "31 more not shown" in lines[-1]


def test_states_of_a_silent_run(project):
    now, gone = time.time(), ended_pid()
    here = socket.gethostname()
    for updated, pid, host, expected in (
        (now, os.getpid(), here, "running"),
        (now - 100, os.getpid(), here, "running"),
        (now - 100, gone, here, "stale"),
        (now - 10, gone, here, "running"),
        (now - 100, gone, "elsewhere", "running"),
        (now - 100, None, here, "running"),
    ):
        row = {"status": "running", "updated": updated, "pid": pid, "host": host}
        assert watch.state(row, now) == expected, row
    write_progress(project, pid=gone, updated=now - 3600)
    write_progress(project, "scaffold", host="elsewhere", updated=now - 3700)
    text = once(project)
    assert "0.5000  stale\n" in text
    assert "silent for 1 h 01 min  running\n" in text
    assert text.endswith("0 finished, 1 running, 1 stale\n")


def test_run_killed_between_its_last_two_files_has_ended(project):
    folder = write_progress(project, pid=ended_pid(), updated=time.time() - 100)
    seal(folder, "finished")
    assert once(project).endswith("1 finished\n")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"round": 1}'])
def test_unreadable_files_do_not_stop_it(project, content):
    folder = write_progress(project)
    (folder / "progress.json").write_text(content)
    (project.results / "partitions").mkdir()
    (project.results / "a file").write_text("")
    write_progress(project, seed=1)
    assert "fedavg seed 1  round 3/10" in once(project)


def test_expected_runs_are_counted_from_the_parameter_files():
    from heterobench import resolve

    project = Project.find(Path(__file__))
    config = resolve.config(project)
    tables = [resolve.benchmark(project, name, config.preset) for name in config.benchmarks]
    runs = sum(len(table.jobs()) * len(table.seeds) for table in tables)
    trials = sum(
        len(table.trials(job.scenario.name, job.arm.name)) * len(table.tuning.seeds)
        for table in tables
        if table.tuning
        for job in table.jobs()
    )
    assert trials > 0
    assert watch.expected(project) == runs + trials


def test_reader_that_has_enough(project):
    for seed in range(200):
        write_progress(project, seed=seed)
    command = f'"{sys.executable}" -c "$CODE" "{project.root}" | head -1'
    result = subprocess.run(command, shell=True, env={**os.environ, "CODE": CODE}, capture_output=True, timeout=90)
    assert result.stdout.count(b"\n") == 1
    assert result.stderr == b""


def test_starts_light(project):
    code = f"import sys\n{CODE}\nprint([m for m in ('torch', 'mlflow', 'pandas', 'numpy') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code, project.root, "once"], capture_output=True, text=True, check=True
    )
    assert result.stdout == "0 finished\n[]\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (5.4, "5 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (-1, "")],
)
def test_duration(seconds, text):
    assert watch.duration(seconds) == text
