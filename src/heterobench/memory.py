"""Memory that a process has freed, kept for its next step."""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
KEPT = 256 * 2**20  # bytes of free memory that a process keeps
LARGEST = 32 * 2**20  # bytes of a block from which on the system is asked for each block anew; glibc takes no more


def keep_freed_memory() -> bool:
    """Tell glibc's malloc not to give small amounts of freed memory back to the system; False where there is no glibc.

    A training step allocates and frees some megabytes. Depending on how the heap happens to lie, malloc returns them
    after each step and gets them back page by page: measured on LeNet, 15 or 44,000 page faults a round and process.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, KEPT))
    return False
