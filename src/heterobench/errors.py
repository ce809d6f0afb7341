"""Errors that a user can act on: each message names the thing, what was found and what to do."""

import logging


class HeterobenchError(Exception):
    """Base of all errors whose message is meant for the user; the command line prints it without a traceback."""


class ConfigurationError(HeterobenchError):
    """A parameter file or an option is wrong: the message names file, key, value and what is allowed."""


class DataError(HeterobenchError):
    """A data file is missing, truncated or altered: the message names file, expected and found checksum."""


class PartitionError(HeterobenchError):
    """A partition with the requested properties cannot be drawn."""


class RunError(HeterobenchError):
    """A run cannot go on: its directory, checkpoint or record is not usable."""


class MachineError(RunError):
    """The machine is at fault and not the run, which is not counted as failed: it goes on when started again."""


class DiskError(MachineError):
    """A disk is full, read-only or failing: the message names the file, and what to do."""


class DamagedFile(HeterobenchError, ValueError):
    """A file that this project wrote does not hold what it wrote; a ValueError for readers that go on without it."""


class TrackerError(HeterobenchError):
    """The tracker cannot be reached; training and tables do not depend on it."""


def log_failure(log: logging.Logger, what: str, error: Exception) -> None:
    """Tell that something failed while other things go on: an error for users in a line, any other as it came."""
    if isinstance(error, HeterobenchError):
        log.error("%s: %s", what, error)
    else:
        log.error("%s", what, exc_info=error)
