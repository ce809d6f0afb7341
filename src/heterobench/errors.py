"""Errors that a user can act on: each message names the thing, what was found and what to do, and no password."""

import re

# What stands between "://" and "@": up to the last "@" before the path; after a "user:" that no port follows also
# beyond, because passwords are written down with raw slashes. Then the values of parameters with telling names.
USERINFO = re.compile(r"(?<=://)(?:[^\s/?#]*@|(?!\[)[^\s/?#:@]*:(?!\d+(?:[/?#\s]|$))[^\s@]*@)")
SECRET = re.compile(r"([?&][^=&\s#]*(?:token|key|secret|passw|pwd|sig|credential|auth)[^=&\s#]*=)[^&\s#'\"]+", re.I)


def without_credentials(text: str) -> str:
    """`text` with user and password left out of every address in it, and the values of signatures and tokens."""
    return SECRET.sub(r"\1***", USERINFO.sub("", text))


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


class TrackerError(HeterobenchError):
    """The tracker cannot be reached; training and tables do not depend on it."""
