"""The MLflow UI, opened where the runs are: its start page shows traces of language models, not training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from heterobench.errors import TrackerError
from heterobench.project import Project
from heterobench.tracking import importer


def answers(url: str, timeout: float = 2.0) -> bool:
    """Whether a tracking server at `url` says that it is healthy, within `timeout` seconds."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=timeout) as reply:
            return reply.status == 200
    except (OSError, ValueError):
        return False


def links(base: str, experiments: list[tuple[str, str, str]]) -> str:
    """For each (name, id, search): the page of the runs that match a search, as a table and as charts."""
    lines = []
    for name, identity, search in experiments:
        page = f"{base.rstrip('/')}/#/experiments/{identity}/runs?workflowType=machine_learning"
        page += f"&searchFilter={quote(search)}" if search else ""
        lines += [] if search else [f"{name}: runs", f"  {page}"]
        lines += [f"{name}: charts", f"  {page}&compareRunsMode=CHART"]
    return "\n".join(lines) or "no experiments yet: run `heterobench track` after the first finished run"


def experiments(project: Project, uri: str) -> list[tuple[str, str, str]]:
    """(name, id, search) of every experiment but MLflow's empty "Default"; a fresh store is initialised.

    The charts page draws ten runs. So beside the whole experiment each scenario has a line of its own, for
    its first seed: there the ten are the methods of one comparison.
    """
    with importer.exclusive(project, uri), importer.reported(uri):
        found = importer.client(uri).search_experiments()
    lines = []
    for e in sorted((e for e in found if e.name != "Default"), key=lambda e: e.name):
        lines.append((e.name, e.experiment_id, ""))
        for scenario in sorted((project.results / e.name / "runs").glob("*")):
            seeds = sorted(int(path.name.removeprefix("seed-")) for path in scenario.glob("*/seed-*"))
            if seeds:
                search = f"tags.scenario = '{scenario.name}' and tags.seed = '{seeds[0]}'"
                lines.append((f"{e.name}, {scenario.name}, seed {seeds[0]}", e.experiment_id, search))
    return lines


def ui(project: Project, port: int = 5000, host: str = "127.0.0.1", stream: TextIO | None = None) -> int:
    """Serve the tracker's UI on http://host:port until Ctrl-C or SIGTERM, and print the links into it.

    Where MLFLOW_TRACKING_URI is a server, print that server's links and return. The server's own lines go to
    results/logs/ui.log. Returns the exit status. Raises TrackerError when the port is taken, the store cannot
    be opened or the server ends early.
    """
    stream = stream or sys.stdout
    uri = importer.tracking_uri(project)
    if uri.startswith(("http:", "https:")):
        print(links(uri, experiments(project, uri)), file=stream, flush=True)
        return 0
    base = f"http://{'127.0.0.1' if host in ('0.0.0.0', '') else host}:{port}"
    if answers(base):
        raise TrackerError(f"{base}: a server runs there already: open it, or choose another with --port")
    known = experiments(project, uri)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    log = project.results / "logs" / "ui.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as lines:
        server = subprocess.Popen(
            command(uri, port, host),
            env=environment(),
            cwd=project.root,
            stdout=lines,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_ready(server, base, log)
        print(links(base, known), file=stream)
        print("Ctrl-C stops the server.", file=stream, flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        stop(server)
        signal.signal(signal.SIGTERM, previous)


def command(uri: str, port: int, host: str) -> list[str]:
    return [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
        *("--backend-store-uri", uri, "--host", host, "--port", str(port)),
    ]


def environment() -> dict[str, str]:
    """Without job execution the server is 2 processes instead of 9 and starts in half the time."""
    return {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | importer.quiet_environment() | dict(os.environ)


def wait_until_ready(server: subprocess.Popen, base: str, log: Path, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not answers(base):
        if server.poll() is not None:
            raise TrackerError(f"{base}: the MLflow server ended at once ({server.returncode}): see {log}")
        if time.monotonic() > until:
            raise TrackerError(f"{base}: the MLflow server did not answer within {seconds:g} s: see {log}")
        time.sleep(0.2)


def stop(server: subprocess.Popen) -> None:
    """End the server and its workers: they are a process group of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            return
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            continue


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
