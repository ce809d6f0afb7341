"""How examples are given to clients: one pure function per scheme, registered under its exact name.

A scheme is ``(columns, clients, options, generator, minimum) -> owner int32 [n]``, the client of each example. Every
example gets one owner and every client `minimum` or more; else it raises PartitionError. Schemes that are registered
with ``drops=True`` may give examples to nobody (-1). Those with ``natural=True`` find their clients in the data:
`clients` is then the number to take, or None for all.

"Dirichlet" and "k classes" mean different procedures in different papers; a name here means one of them. A module is a
family: importing this package registers all of them.
"""

from heterobench.partition.schemes import by_class, by_client, long_tail, natural, quantity
from heterobench.partition.schemes.registry import SCHEMES, Columns, Scheme, check, scheme

__all__ = [
    "SCHEMES",
    "Columns",
    "Scheme",
    "by_class",
    "by_client",
    "check",
    "long_tail",
    "natural",
    "quantity",
    "scheme",
]
