"""What happens to a partition after examples have found their clients: one pure function each, under its exact name.

A change is ``(view, options, generator) -> view``. It moves nothing between clients; it says what clients see: with
which labels, under which transformation, when, and who never trains. A partition file lists changes in the order in
which they are made. A module is a family: importing this package registers all of them.
"""

from heterobench.partition.changes import clients, features, labels, streams
from heterobench.partition.changes.registry import CHANGES, Change, View, change, check

__all__ = ["CHANGES", "Change", "View", "change", "check", "clients", "features", "labels", "streams"]
