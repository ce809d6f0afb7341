"""Time and memory of partitions at scale: draw, measure and store, one process per scheme and per change.

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
from heterobench.partition.changes import CHANGES
from heterobench.partition.partition import draw
from heterobench.partition.schemes import SCHEMES
from heterobench.project import Project

SCHEME_OPTIONS = {
    "iid": {},
    "dirichlet-by-class": {"alpha": 0.5},
    "dirichlet-by-class-uncapped": {"alpha": 0.5},
    "dirichlet-by-client": {"alpha": 0.5},
    "dirichlet-inner": {"alpha": 0.5, "sigma": 0.3},
    "shards": {"shards_per_client": 2},
    "k-classes": {"classes_per_client": 2},
    "quantity-dirichlet": {"alpha": 0.5},
    "quantity-log-normal": {"sigma": 1.0},
    "quantity-power-law": {"exponent": 1.0},
    "long-tail-dirichlet": {"imbalance": 10, "alpha": 0.5},
    "natural-key": {"key": "person"},
    "domain": {"key": "place"},
    "domain-dirichlet": {"key": "place", "alpha": 0.5},
}
CHANGE_OPTIONS = {
    "feature-noise": {"sigma": 1.0},
    "rotation": {"maximum": 45},
    "colour": {"maximum": 45},
    "noisy-labels": {"maximum": 0.5},
    "limited-labels": {"share": 0.1, "stratified": True},
    "server-labels": {"share": 0.1},
    "unseen-classes": {"number": 4},
    "class-incremental": {"tasks": 5},
    "permuted-tasks": {"tasks": 5},
    "drift": {"stages": 5, "alpha": 0.5},
    "held-out-clients": {"share": 0.1},
}
CLASSES = 10
PLACES = 10
FEATURES = "inputs"  # iid, measured with inputs of 8 x 8 bytes


def peak() -> float:
    """Largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def partition_file(name: str, clients: int) -> PartitionFile:
    """The scheme of that name; or 'iid' with the change of that name, or with nothing."""
    changes = [{"change": name, "options": CHANGE_OPTIONS[name]}] if name in CHANGES else []
    scheme = name if name in SCHEMES else "iid"
    options = SCHEME_OPTIONS[scheme]
    if options.get("key") == "place":
        options = options | {"clients_per_domain": clients // PLACES}
    # minimum 0: at ten examples per client, hardly any Dirichlet draw leaves nobody empty
    return PartitionFile(
        title=name,
        scheme=scheme,
        clients=None if name == "natural-key" else clients,
        options=options,
        changes=changes,
        minimum=0,
    )


def one(name: str, examples: int, clients: int) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, examples)
    inputs = generator.integers(0, 256, (examples, 8, 8), np.uint8) if name == FEATURES else None
    attributes = {}
    if SCHEMES.get(name, SCHEMES["iid"]).natural:
        person = generator.integers(0, clients, examples)
        attributes = {"person": person, "place": person % PLACES}
    file = partition_file(name, clients)
    before, seconds, cpu = peak(), [time.perf_counter()], time.process_time()
    partition = draw(file, labels, seed=0, attributes=attributes)
    seconds.append(time.perf_counter())
    counts = heterogeneity.label_counts(partition, labels, CLASSES)
    measured = heterogeneity.measure(counts, partition, labels, inputs)
    staged = heterogeneity.stage_counts(partition, labels, CLASSES) if "stage" in partition.details else None
    seconds.append(time.perf_counter())
    with tempfile.TemporaryDirectory() as folder:
        path = store.save(Project(Path(folder)), "random", name, partition, counts, measured, staged)
        seconds.append(time.perf_counter())
        store.load(path)
        seconds.append(time.perf_counter())
        size = path.stat().st_size / 1e6
    steps = "".join(f"{b - a:9.2f}" for a, b in pairwise(seconds))
    both = f"{seconds[-1] - seconds[0]:9.2f}{time.process_time() - cpu:9.2f}"
    print(f"{name:28}{steps}{both}{size:10.1f}{before:10.0f}{peak():10.0f}")


def main(examples: int = 1_000_000, clients: int = 100_000) -> None:
    print(f"{examples} examples, {clients} clients, {CLASSES} classes; seconds, MB")
    columns = ("draw", "measure", "store", "load", "all", "CPU")
    print(
        f"{'scheme, or change of iid':28}{''.join(f'{c:>9}' for c in columns)}{'file':>10}{'imports':>10}{'peak':>10}",
        flush=True,
    )
    for name in (*SCHEME_OPTIONS, *CHANGE_OPTIONS, FEATURES):  # a process each: the peak of memory never falls
        subprocess.run([sys.executable, __file__, name, str(examples), str(clients)], check=True)


if __name__ == "__main__":
    missing = (set(SCHEMES) - set(SCHEME_OPTIONS)) | (set(CHANGES) - set(CHANGE_OPTIONS))
    if missing:
        raise SystemExit(f"no options for {', '.join(sorted(missing))}: add them to this script")
    if sys.argv[1:] and not sys.argv[1].isdigit():
        one(sys.argv[1], *map(int, sys.argv[2:]))
    else:
        main(*map(int, sys.argv[1:]))
