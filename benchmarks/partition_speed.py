"""Time and memory of partitions at scale: draw, measure and store, one process per scheme.

python benchmarks/partition_speed.py [examples] [clients]
"""

import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from heterobench.config.schema import PartitionFile
from heterobench.partition import heterogeneity, store
from heterobench.partition.partition import draw
from heterobench.project import Project

OPTIONS = {
    "iid": {},
    "dirichlet-by-class": {"alpha": 0.5},
    "shards": {"shards_per_client": 2},
    "k-classes": {"classes_per_client": 2},
    "quantity-dirichlet": {"alpha": 0.5},
}
CLASSES = 10


def peak() -> float:
    """Largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(scheme: str, examples: int, clients: int) -> None:
    labels = np.random.default_rng(0).integers(0, CLASSES, examples)
    # minimum 0: at ten examples per client, hardly any Dirichlet draw leaves nobody empty
    file = PartitionFile(title=scheme, scheme=scheme, clients=clients, options=OPTIONS[scheme], minimum=0)
    before, seconds = peak(), [time.perf_counter()]
    partition = draw(file, labels, seed=0)
    seconds.append(time.perf_counter())
    counts = heterogeneity.label_counts(partition, labels, CLASSES)
    measured = heterogeneity.measure(counts)
    seconds.append(time.perf_counter())
    with tempfile.TemporaryDirectory() as folder:
        path = store.save(Project(Path(folder)), "random", scheme, partition, counts, measured)
        seconds.append(time.perf_counter())
        store.load(path)
        seconds.append(time.perf_counter())
        size = path.stat().st_size / 1e6
    steps = "".join(f"{b - a:9.2f}" for a, b in pairwise(seconds))
    print(f"{scheme:20}{steps}{seconds[-1] - seconds[0]:9.2f}{size:10.1f}{before:10.0f}{peak():10.0f}")


def main(examples: int = 1_000_000, clients: int = 100_000) -> None:
    print(f"{examples} examples, {clients} clients, {CLASSES} classes; seconds, MB")
    columns = ("draw", "measure", "store", "load", "all")
    print(
        f"{'scheme':20}{''.join(f'{c:>9}' for c in columns)}{'file':>10}{'imports':>10}{'peak':>10}",
        flush=True,
    )
    for scheme in OPTIONS:  # a process each, because the peak of memory never falls
        subprocess.run([sys.executable, __file__, scheme, str(examples), str(clients)], check=True)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in OPTIONS:
        one(sys.argv[1], *map(int, sys.argv[2:]))
    else:
        main(*map(int, sys.argv[1:]))
