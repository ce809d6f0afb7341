"""Errors that a user can act on: each message names the thing, what was found and what to do."""


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


class TrackerError(HeterobenchError):
    """The tracker cannot be reached; training and tables do not depend on it."""
