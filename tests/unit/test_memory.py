"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

STEPS = """
import ctypes, resource, sys, torch
from heterobench.memory import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory
for threshold in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):  # its first rule: each block from the system
    assert ctypes.CDLL(None).mallopt(threshold, 2**17)
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def step():  # 20 blocks of 1 MB, all freed again
    blocks = [torch.empty(2**18).fill_(1) for _ in range(20)]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc")
def test_steps_do_not_ask_the_system_for_memory_again_and_again():
    kept, given_back = faults("kept"), faults("given back")
    assert kept < 20 * 2**20 / 4096  # fewer page faults in 20 steps than a single step has pages
    assert given_back > 20 * kept + 20 * 2**20 / 4096
