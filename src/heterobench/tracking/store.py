"""The tracker: its address, the client that everybody asks it with, and one at a time; mlflow is imported for that."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from heterobench import addresses
from heterobench.errors import HeterobenchError, TrackerError
from heterobench.files import atomic
from heterobench.project import Project
from heterobench.tracking import artifacts
from heterobench.tracking.entries import RUN_ID

EVERY = f"tags.`{RUN_ID}` LIKE '%'"
SETTING = "MLFLOW_TRACKING_URI"
SAFE = "the records in results/ are complete without the tracker; run `heterobench track` again when it works"


def tracking_uri(project: Project) -> str:
    """MLFLOW_TRACKING_URI, else sqlite:///mlflow.db; a relative sqlite path is one below the project."""
    uri = os.environ.get(SETTING) or "sqlite:///mlflow.db"
    path = uri.removeprefix("sqlite:///")
    return f"sqlite:///{project.root / path}" if path != uri and not path.startswith("/") else uri


def database(uri: str) -> Path | None:
    """The file behind a sqlite URI; None for every other tracker."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def is_server(uri: str) -> bool:
    """Whether `uri` is one of a tracking server, that has pages of its own."""
    return uri.startswith(("http:", "https:"))


def owner(project: Project, uri: str) -> str | None:
    """The name of a project where others may track as well, "host:folder"; None for a database inside the project.

    There all runs are the project's own, wherever it has been moved.
    """
    file = database(uri)
    if file is not None and file.resolve().is_relative_to(project.root.resolve()):
        return None
    return f"{platform.node()}:{project.root.resolve()}"


def quiet_environment() -> dict[str, str]:
    """Settings under which mlflow sends nothing home, and gives up on a dead server within seconds."""
    return {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        # Else a server's client prints two lines for every run.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }


@cache
def client(uri: str) -> Any:
    """An MLflow client, one per address and process; the first call imports mlflow (seconds).

    Opening a fresh sqlite file writes its tables, so the caller holds `exclusive`.
    """
    for key, value in quiet_environment().items():
        os.environ.setdefault(key, value)
    addresses.connect_directly_to_this_machine()
    # Notes about tables being created are no news for a user.
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # a dead server is reported once, not with every try
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


@contextmanager
def exclusive(project: Project, uri: str, wait: float = 120) -> Iterator[None]:
    """One importer at a time: the lock lies beside the database, else in results/.

    Raises TrackerError after `wait` seconds. The lock of a killed process is free again.
    """
    file = database(uri)
    path = file.with_name(f"{file.name}.lock") if file else project.results / ".tracking.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire(timeout=wait)
    except Timeout:
        raise TrackerError(f"{path}: another import has held the lock for {wait:g} s: {SAFE}") from None
    except OSError as error:
        hint = f"check {SETTING}"
        raise TrackerError(f"{path}: cannot be written ({error}): {hint}; {SAFE}") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def reported(uri: str) -> Iterator[None]:
    """Whatever goes wrong in the tracker becomes a TrackerError that says what to do.

    The error stands alone: what mlflow says of itself, and the errors before it, hold the address as it was given.
    """
    try:
        yield
    except HeterobenchError:
        raise
    except Exception as error:
        reason = (str(first_of(error)).strip() or type(error).__name__).splitlines()[0][:300]
        raise TrackerError(f"{uri}: the tracker does not answer or refuses: {reason}. {SAFE}") from None


def first_of(error: BaseException) -> BaseException:
    """What the system said ("connection refused"), where that is behind `error`: MLflow's own text ends with it."""
    cause: BaseException | None = error
    while cause is not None:
        first, cause = cause, cause.__cause__ or cause.__context__
    return first if isinstance(first, OSError) else error


@contextmanager
def opened(project: Project, uri: str) -> Iterator[Any]:
    """The client of the tracker at `uri`, for one process at a time; its artifacts lie where the project is now."""
    if database(uri) is None:
        addresses.check(SETTING, uri)
    with exclusive(project, uri), reported(uri):
        if (file := database(uri)) is not None:
            if os.path.lexists(file) and not file.is_file():  # MLflow would try that again for minutes
                raise TrackerError(f"{file}: no file, so no database. What to do: move it away; {SAFE}")
            if not file.exists():
                make(file)
            artifacts.settle(file)
        yield client(uri)


def make(file: Path) -> None:
    """A new database, whole or absent: with tables that a kill has left half made MLflow could not go on."""
    with atomic(file) as temporary:
        temporary.unlink()  # MLflow makes its tables where nothing is
        client(f"sqlite:///{temporary}").search_experiments(max_results=1)


def unreachable(project: Project, uri: str) -> str:
    """Why the tracker at `uri` cannot be used, in a line; "" when it can. Asked as every import asks it."""
    try:
        with opened(project, uri) as mlflow:
            mlflow.search_experiments(max_results=1)
        return ""
    except HeterobenchError as error:
        return str(error).removesuffix(f" {SAFE}")


def experiments(mlflow: Any) -> Iterator[Any]:
    """All that are not deleted."""
    token = None
    while True:
        page = mlflow.search_experiments(max_results=1000, page_token=token)
        yield from page
        if not (token := page.token):
            return


def search(mlflow: Any, experiments: list[str], text: str) -> Iterator[Any]:
    """Runs that match a filter, deleted ones included: what a user deleted does not come back."""
    from mlflow.entities import ViewType

    token = None
    while experiments:
        page = mlflow.search_runs(experiments, text, ViewType.ALL, max_results=1000, page_token=token)
        yield from page
        if not (token := page.token):
            return


def equal(tag: str, value: str) -> str:
    """A condition of MLflow's filters, which have no way to write a quote inside quotes."""
    mark = '"' if "'" in value else "'"
    return f"tags.`{tag}` = {mark}{value}{mark}"
