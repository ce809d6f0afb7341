"""Which device a job computes on. Snakemake gives a job a number of GPUs but no id, so a lock file chooses one."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from heterobench.errors import ConfigurationError


def visible_gpus() -> int:
    """Number of GPUs that this process may use, without importing torch (for the Snakefile)."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([part for part in visible.split(",") if part.strip() not in ("", "-1")])
    folder = Path("/proc/driver/nvidia/gpus")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def lock_folder() -> Path:
    """Machine-wide and per user, since jobs of two projects share the same GPUs."""
    return Path(tempfile.gettempdir()) / f"heterobench-{os.getuid()}"


@contextmanager
def slot(devices: Sequence[str], per_device: int, folder: Path | None = None) -> Iterator[str]:
    """One of `devices`, the least used first; waits until one of its `per_device` places is free.

    The operating system gives a place back when its process ends, however it ends.
    """
    folder = folder or lock_folder()
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for place in range(per_device):
            for device in devices:
                lock = FileLock(folder / f"{device.replace(':', '-')}.{place}.lock")
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue
                try:
                    yield device
                    return
                finally:
                    lock.release()
        time.sleep(0.5)


@contextmanager
def chosen(wish: str, per_gpu: int) -> Iterator[str]:
    """The torch device for `wish` (auto, cpu or cuda): a GPU's place where there is one, else the CPU."""
    import torch

    count = torch.cuda.device_count() if wish != "cpu" and torch.cuda.is_available() else 0
    if wish == "cuda" and not count:
        raise ConfigurationError("params/config.yaml: device: cuda is asked for, but torch sees no CUDA device")
    if not count:
        yield "cpu"
        return
    if (own := os.environ.get("LOCAL_RANK")) is not None:  # torchrun has dealt out the GPUs
        torch.cuda.set_device(int(own) % count)
        yield f"cuda:{int(own) % count}"
        return
    with slot([f"cuda:{i}" for i in range(count)], per_gpu) as device:
        yield device
