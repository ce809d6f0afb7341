"""The MLflow UI, opened where the runs are: its start page shows traces of language models, not training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, TextIO
from urllib.parse import quote

from heterobench import addresses, tether
from heterobench.errors import TrackerError, without_credentials
from heterobench.project import Project
from heterobench.tracking import importer, store
from heterobench.tracking.superseded import CURRENT, rows


class View(NamedTuple):
    """The runs of an experiment that match a search: as charts, and as a `table` first."""

    name: str
    experiment: str
    search: str
    table: bool = False


def answers(url: str, timeout: float = 2.0) -> bool:
    """Whether a tracking server at `url` says that it is healthy, within `timeout` seconds."""
    try:
        with addresses.open_url(f"{url.rstrip('/')}/health", timeout) as reply:
            return reply.status == 200
    except (OSError, ValueError):
        return False


def links(base: str, views: list[View]) -> str:
    """For each view its page. A link holds no password: the browser asks for it."""
    lines = []
    for view in views:
        page = f"{addresses.apart(base)[0].rstrip('/')}/#/experiments/{view.experiment}/runs"
        page += f"?workflowType=machine_learning&searchFilter={quote(view.search)}"
        lines += [f"{view.name}: runs", f"  {page}"] if view.table else []
        lines += [f"{view.name}: charts", f"  {page}&compareRunsMode=CHART"]
    return "\n".join(lines) or "no experiments yet: run `heterobench track` after the first finished run"


def views(project: Project, uri: str) -> list[View]:
    """Of every experiment but MLflow's empty "Default", without superseded runs; a fresh store is initialised.

    The charts page draws ten runs. So beside the whole experiment each scenario has a line of its own, for
    its first seed: there the ten are the methods of one comparison.
    """
    with store.opened(project, uri) as mlflow:
        found = [e for e in store.experiments(mlflow) if e.name != "Default"]
    lines = []
    for e in sorted(found, key=lambda e: e.name):
        lines.append(View(e.name, e.experiment_id, CURRENT, table=True))
        table = rows(project, e.name)
        kept = None if table is None else {scenario for scenario, _ in table}
        for scenario in sorted((project.results / e.name / "runs").glob("*")):
            seeds = sorted(int(path.name.removeprefix("seed-")) for path in scenario.glob("*/seed-*"))
            if seeds and (kept is None or scenario.name in kept):
                search = f"{CURRENT} and tags.scenario = '{scenario.name}' and tags.seed = '{seeds[0]}'"
                lines.append(View(f"{e.name}, {scenario.name}, seed {seeds[0]}", e.experiment_id, search))
    return lines


def ui(project: Project, port: int = 5000, host: str = "127.0.0.1", stream: TextIO | None = None) -> int:
    """Serve the tracker's UI on http://host:port until Ctrl-C or SIGTERM, and print the links into it.

    Where MLFLOW_TRACKING_URI is a server, print that server's links and return. The server's own lines go to
    results/logs/ui.log. Returns the exit status. Raises TrackerError when the port is taken, the store cannot
    be opened or the server ends early.
    """
    stream = stream or sys.stdout
    uri = store.tracking_uri(project)
    if store.is_server(uri):
        print(links(uri, views(project, uri)), file=stream, flush=True)
        return 0
    base = f"http://{'127.0.0.1' if host in ('0.0.0.0', '') else host}:{port}"
    if answers(base):
        raise TrackerError(f"{base}: a server runs there already: open it, or choose another with --port")
    summary = importer.import_runs(project, uri)  # the page shows what the results hold now
    if summary.imported or summary.failed:
        print(summary, file=stream)
    known = views(project, uri)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    log = project.results / "logs" / "ui.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    server = tether.start(
        command(port, host),
        env=environment(uri),
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    threading.Thread(target=copy_lines, args=(server.stdout, log), daemon=True).start()
    try:
        wait_until_ready(server, base, log)
        print(links(base, known), file=stream)
        print("Ctrl-C stops the server.", file=stream, flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        tether.stop(server)
        signal.signal(signal.SIGTERM, previous)


def command(port: int, host: str) -> list[str]:
    return [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", host, "--port", str(port)]


def environment(uri: str) -> dict[str, str]:
    """Without job execution the server is 2 processes instead of 9 and starts in half the time.

    The address of a database may hold a password, and everybody can read the command line of a process.
    """
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | store.quiet_environment() | dict(os.environ)
    return settings | {"MLFLOW_BACKEND_STORE_URI": uri}


def copy_lines(source: TextIO, log: Path) -> None:
    """What the server says, without credentials, into a file begun anew."""
    with open(log, "w", encoding="utf-8") as sink:
        for line in source:
            sink.write(without_credentials(line))
            sink.flush()


def wait_until_ready(server: subprocess.Popen, base: str, log: Path, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not answers(base):
        if server.poll() is not None:
            raise TrackerError(f"{base}: the MLflow server ended at once ({server.returncode}): see {log}")
        if time.monotonic() > until:
            raise TrackerError(f"{base}: the MLflow server did not answer within {seconds:g} s: see {log}")
        time.sleep(0.2)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
