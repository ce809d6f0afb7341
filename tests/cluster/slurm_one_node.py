"""The slurm profile against a real SLURM of one node on this machine: ten jobs finish, a failing one is retried.

Needs root, Debian's slurm-wlm (with munge), and ``pip install -e '.[slurm]'``. Starts munged, slurmctld and slurmd on
loopback, runs a small project through ``profiles/slurm``, stops the servers again. An existing
/etc/slurm/slurm.conf is never touched.

    python tests/cluster/slurm_one_node.py
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from miniature import miniature, snakemake

CONF = Path("/etc/slurm/slurm.conf")  # the only place where srun inside a job looks
SETTINGS = """
ClusterName=heterobench
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation={state}/ctld
SlurmdSpoolDir={state}/d
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MinJobAge=3600
InactiveLimit=0
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} State=UNKNOWN
PartitionName=local Nodes=ALL Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=1000
"""
BENCHMARK = """
title: Cluster
presets:
  mini:
    seeds: 1
    scenarios:
      - {{dataset: digits, model: softmax, partition: [{partitions}], schedule: full}}
    budget: {{rounds: 3, batch_size: 16}}
    algorithms: [{algorithms}]
"""


@contextmanager
def slurm() -> Iterator[None]:
    """One node on loopback for as long as the block runs."""
    if CONF.exists():
        sys.exit(f"{CONF} exists: this script needs the place, and will not touch another SLURM")
    for program in ("munged", "slurmctld", "slurmd"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            sys.exit(f"{program} is not installed (Debian: apt-get install slurm-wlm)")
    state = Path(tempfile.mkdtemp(prefix="heterobench-slurm-"))
    for name in ("ctld", "d"):
        (state / name).mkdir()
    host, cores = socket.gethostname().partition(".")[0], os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 // 2
    CONF.parent.mkdir(exist_ok=True)
    CONF.write_text(SETTINGS.format(host=host, state=state, cores=cores, memory=memory))
    Path("/run/munge").mkdir(exist_ok=True)
    shutil.chown("/run/munge", "munge", "munge")
    started_munge = subprocess.run(["pgrep", "-x", "munged"], capture_output=True).returncode != 0
    try:
        if started_munge:
            subprocess.run(["runuser", "-u", "munge", "--", "/usr/sbin/munged"], check=True)
            time.sleep(1)
        subprocess.run(["/usr/sbin/slurmctld"], check=True)
        subprocess.run(["/usr/sbin/slurmd", "-N", host], check=True)
        deadline = time.monotonic() + 30
        while "idle" not in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout:
            if time.monotonic() > deadline:
                sys.exit(f"the node did not come up; see {state}")
            time.sleep(0.5)
        yield
    finally:
        for name in ["slurmd", "slurmctld", *(["munged"] if started_munge else [])]:
            subprocess.run(["pkill", "-x", name])
        CONF.unlink()
        shutil.rmtree(state, ignore_errors=True)


def damage(root: Path, partition: str) -> None:
    """Cut a stored partition in half: the job that reads it has to fail, each time it is tried."""
    file = next((root / "data/partitions/digits").glob(f"{partition}-*.parquet"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def main() -> None:
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        raise SystemExit("Snakemake's SLURM plugin is not installed: pip install -e '.[slurm]'")
    root = miniature(Path(tempfile.mkdtemp(prefix="heterobench-cluster-")) / "project")
    algorithms = "fedavg, fedprox, scaffold, fednova, feddyn"
    files = {"healthy": ("dirichlet-0.1, iid", algorithms), "broken": ("k-classes-2", "fedavg")}
    for name, (partitions, chosen) in files.items():
        text = BENCHMARK.format(partitions=partitions, algorithms=chosen)
        (root / f"params/benchmarks/{name}.yaml").write_text(text)
    (root / "params/config.yaml").write_text("preset: mini\nbenchmarks: [healthy, broken]\n")
    manifest = "results/partitions/digits/k-classes-2/seed-0.json"
    result = snakemake(root, "--cores", "2", manifest)
    assert result.returncode == 0, result.stdout[-3000:]
    damage(root, "k-classes-2")

    targets = [
        f"results/{benchmark}/mini/runs/digits.{partition}.softmax.full/{algorithm}/runs.json"
        for benchmark, (partitions, chosen) in files.items()
        for partition in partitions.split(", ")
        for algorithm in chosen.split(", ")
    ]
    began = time.monotonic()
    with slurm():
        profile = ["--profile", "profiles/slurm", "--default-resources", "slurm_partition=local"]
        result = snakemake(root, *profile, "--", *targets)
    done = [target for target in targets if (root / target).is_file()]
    submitted = len(re.findall(r"submitted with SLURM jobid", result.stdout))
    print(f"{len(done)} of {len(targets)} jobs finished in {time.monotonic() - began:.0f} s, {submitted} submitted")
    try:
        assert [target for target in targets if target not in done] == [targets[-1]], result.stdout[-4000:]
        assert submitted == 12, f"10 jobs and a failing one tried twice are 12 submissions, not {submitted}"
        assert result.returncode == 1, "the failed job has to be told by the exit status"
        log = (root / "results/logs/broken/mini/train/digits.k-classes-2.softmax.full/fedavg.log").read_text()
        assert "k-classes-2" in log, log
    except AssertionError:
        print(result.stdout[-6000:])
        raise
    print("the failing job was tried twice and reported:", log.strip().splitlines()[-1][:160])
    shutil.rmtree(root.parent)


if __name__ == "__main__":
    main()
