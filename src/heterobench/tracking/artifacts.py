"""Where artifacts lie: beside the database, in mlartifacts/<experiment>/<run>, and with it when it is moved or copied.

MLflow writes absolute places into its database. After a move or a copy they name a folder of another project, or one
that is gone, and artifacts would be written there. So every use of a database first compares the places in it with
where it lies now, and puts them right.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from heterobench.errors import TrackerError
from heterobench.tracking.entries import IMPORTED

FOLDER = "mlartifacts"
# Tables of mlflow that hold places. Those without our experiments in front are a user's own, moved with the project.
COLUMNS = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))


class Move(NamedTuple):
    """Folders of a database, before and now, as URIs."""

    old: str
    new: str


def place(home: Path, experiment: str) -> str:
    """URI of the folder for the artifacts of an experiment, beside a database in the folder `home`."""
    return (home.resolve() / FOLDER / experiment).as_uri()


def moves(connection: sqlite3.Connection, home: Path) -> list[Move]:
    """From where the database has come: the folders that experiments made here name, other than `home`."""
    try:
        rows = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return []  # a fresh file
        raise
    new = home.resolve().as_uri()
    found = {}
    for name, location in rows:
        tail = place(home, name).removeprefix(new)
        if location and location.endswith(tail) and location != new + tail:
            found[location.removesuffix(tail)] = None
    return [Move(old, new) for old in found]


def settle(file: Path) -> int:
    """Put the places in the database `file` right, in one transaction; returns how many were wrong.

    An imported run whose artifacts did not come along counts as cut off, so the next import makes it anew. Raises
    sqlite3.Error for what is no database or stays locked for a minute.
    """
    if not file.is_file():
        return 0
    # The name as an URI: a missing file is not made, and a path may hold any character.
    uri = f"{file.resolve().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None)) as connection:
        if not moves(connection, file.parent):
            return 0
        connection.execute("BEGIN IMMEDIATE")
        count = sum(_rewrite(connection, move) for move in moves(connection, file.parent))
        connection.execute("COMMIT")
        return count


def _rewrite(connection: sqlite3.Connection, move: Move) -> int:
    """Places below the old folder become places below the new one, as URIs and as plain paths."""
    count = 0
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for old, new in (move, tuple(unquote(urlsplit(uri).path) for uri in move)):
        for table, column in COLUMNS:
            if table in tables:
                below = f"substr({column}, 1, ?) = ?"
                text = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {below} AND NOT {below}"
                values = (new, len(old) + 1, len(old) + 1, f"{old}/", len(new) + 1, f"{new}/")
                count += connection.execute(text, values).rowcount
    query = (
        "SELECT run_uuid, artifact_uri FROM runs WHERE lifecycle_stage = 'active' AND substr(artifact_uri, 1, ?) = ?"
    )
    below = f"{move.new}/{FOLDER}/"
    for run, uri in connection.execute(query, (len(below), below)).fetchall():
        if not folder(uri).is_dir():
            connection.execute("DELETE FROM tags WHERE run_uuid = ? AND key = ?", (run, IMPORTED))
    return count


def folder(uri: str) -> Path | None:
    """The folder on this machine that artifacts under `uri` lie in; None where a server or a store keeps them."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def check(experiment: str, location: str, home: Path, server: bool) -> None:
    """Raise TrackerError where artifacts would be written into a folder of somebody else, or into one made for them.

    The client writes those that are no server's affair itself: below `home`, the folder of the project or of the
    database, and, for a server on this machine, where that server keeps its own.
    """
    where = folder(location)
    if where is None or where.is_relative_to(home.resolve()) or (server and where.parent.is_dir()):
        return
    if server:
        advice = (
            "the server keeps them in a folder that is not on this machine. What to do: let it take them itself "
            "(mlflow server --serve-artifacts); if its database was moved together with a project, run `heterobench "
            "track` there once without MLFLOW_TRACKING_URI; or make that folder"
        )
    else:
        advice = (
            "which is another project's. What to do: put a server in front of that database (mlflow server) and name "
            "it in MLFLOW_TRACKING_URI, or give this project a database of its own"
        )
    raise TrackerError(f"experiment {experiment}: its artifacts belong into {where}: {advice}")
