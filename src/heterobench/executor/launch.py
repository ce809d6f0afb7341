"""Start the ranks of one run on this machine alone: torchrun without a port that other machines can reach.

``python -m heterobench.executor.launch RANKS -m MODULE ARGUMENTS``. torchrun's own meeting place, also with
``--standalone``, listens on all of the machine's addresses; here it is a file, and the ranks talk over loopback. Runs
on several machines are started with torchrun itself (README).
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from heterobench.executor.distributed import STORE


def launch(ranks: int, arguments: list[str]) -> int:
    """Run `arguments` (as of torchrun, after its options) in `ranks` processes. Returns the exit status."""
    with tempfile.TemporaryDirectory(prefix="heterobench-ranks-") as folder:
        os.environ[STORE] = str(Path(folder) / "ranks")
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # else torchrun opens a port for the ranks
        for library in ("GLOO", "NCCL"):
            os.environ[f"{library}_SOCKET_IFNAME"] = "lo"
        meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", str(Path(folder) / "agent")]
        meeting += ["--rdzv-conf", "store_type=file", "--rdzv-id", Path(folder).name]
        try:
            run.main(["--nnodes", "1", "--nproc-per-node", str(ranks), *meeting, *arguments])
        except ChildFailedError as error:
            print(f"heterobench: {told(error)}", file=sys.stderr)
            return 1
    return 0


def told(error: ChildFailedError) -> str:
    """What became of the rank that ended first, and what to do."""
    rank, failure = error.get_first_failure()
    others = "the other ranks were ended"
    if failure.exitcode >= 0:
        return f"rank {rank} ended with status {failure.exitcode}, its message stands above; {others}"
    name = signal.Signals(-failure.exitcode).name
    advice = "start the same command again, perhaps with fewer ranks: the run goes on from its last checkpoint"
    return f"rank {rank} was ended by {name} (killed, or out of memory); {others}. What to do: {advice}"


if __name__ == "__main__":
    sys.exit(launch(int(sys.argv[1]), sys.argv[2:]))
