"""Errors that a user can act on: each message names the thing, what was found and what to do, and no password."""

import logging
import re
import reprlib

# What stands between "://" and "@": up to the last "@" before the path; after a "user:" that no port follows also
# beyond, because passwords are written down with raw slashes. Then the values of parameters with telling names.
USERINFO = re.compile(r"(?<=://)(?:[^\s/?#]*@|(?!\[)[^\s/?#:@]*:(?!\d+(?:[/?#\s]|$))[^\s@]*@)")
SECRET = re.compile(r"([?&][^=&\s#]*(?:token|key|secret|passw|pwd|sig|credential|auth)[^=&\s#]*=)[^&\s#'\"]+", re.I)

LONGEST_FOUND = 200  # characters of a value in a message


def without_credentials(text: str) -> str:
    """`text` with user and password left out of every address in it, and the values of signatures and tokens."""
    return SECRET.sub(r"\1***", USERINFO.sub("", text))


class _Short(reprlib.Repr):
    def __init__(self):
        super().__init__()
        self.maxlevel = 4
        self.maxstring = self.maxlong = self.maxother = LONGEST_FOUND
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 20

    def repr_int(self, value: int, level: int) -> str:
        return f"a number of {value.bit_length()} bits" if value.bit_length() > LONGEST_FOUND else repr(value)


def short(value: object) -> str:
    """`value` as a message shows it: a part of it alone where it is long, deep or a number of thousands of digits."""
    return _Short().repr(value)


class HeterobenchError(Exception):
    """Base of all errors whose message is meant for the user; the command line prints it without a traceback."""

    def __init__(self, *arguments: object):
        super().__init__(*(without_credentials(a) if isinstance(a, str) else a for a in arguments))


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
