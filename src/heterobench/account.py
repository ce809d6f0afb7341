"""A name and a home for users who have none, as in containers that run as a bare number: libraries ask for both."""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path


def ensure_account() -> None:
    """Let DVC, MLflow and torch, here and in processes started from here, find a user name and a home directory."""
    try:
        getpass.getuser()
    except (KeyError, OSError):  # neither in the environment nor among the system's users
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(substitute_home())


def substitute_home() -> Path:
    return Path(tempfile.gettempdir()) / f"heterobench-home-{os.getuid()}"
