"""The writing side of a record (see `heterobench.records.record` for the files)."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from heterobench.errors import RunError
from heterobench.files import altered, difference, write_json, writing
from heterobench.records import record, saved_model
from heterobench.records.succession import KEEP, settle

PROGRESS_SECONDS = 0.5
STREAMS = (record.ROUNDS, record.TIMING)


class Recorder:
    """Appends to the record of one run; opened anew it goes on where a checkpoint says.

    What a directory holds that is not empty is settled first: see `heterobench.records.succession`.
    """

    def __init__(self, folder: Path, config: dict[str, Any], bound: str = "", keep: int = KEEP):
        self.folder, self.config = folder, config
        self._told = 0.0
        self._streams: dict[str, Any] = {}
        self._digests: dict[str, Any] = {}
        self._models: dict[str, str | None] = {}
        settle(folder, config, bound, keep)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to compute, be it that the run has diverged."""
        return record.Record(self.folder).computed

    def begin(
        self, provenance: dict[str, Any], files: dict[str, Any] | None = None, snapshots: Iterable[int] = ()
    ) -> None:
        """Make the record what it was when `files` (`files()`, kept in a checkpoint) were told, and open its streams.

        Without a checkpoint the record is empty. `snapshots`: rounds whose models belong to it, where there are any.
        """
        files = files or {}
        write_json(self.folder / record.PROVENANCE, provenance)
        (self.folder / record.END).unlink(missing_ok=True)
        for name in STREAMS:
            stream = open(self.folder / name, "ab")  # noqa: SIM115  open for the length of the run
            stream.truncate(files.get(name, {}).get("bytes", 0))
            self._streams[name] = stream
            self._digests[name] = hashlib.sha256((self.folder / name).read_bytes())
        for round, path in record.snapshots(self.folder).items():
            if round in snapshots and record.snapshot_name(round) in files:
                saved_model.note(path, {"run_id": self.config["run_id"], "round": round})
                self.keep(path)
            else:
                path.unlink()

    def append(self, name: str, row: dict[str, Any]) -> None:
        line = record.line(row).encode()
        with writing(self.folder / name, len(line)):
            self._streams[name].write(line)
            self._streams[name].flush()
        self._digests[name].update(line)

    def keep(self, path: Path) -> None:
        """Tell of a model that was kept along the way."""
        self._models[path.relative_to(self.folder).as_posix()] = saved_model.content(path)

    def files(self) -> dict[str, dict[str, Any]]:
        """What was written so far and is safely on disk, with digests: what a checkpoint has to remember."""
        for stream in self._streams.values():
            os.fsync(stream.fileno())
        found = {name: {"sha256": digest} for name, digest in self._models.items()}
        for name, stream in self._streams.items():
            found[name] = {"bytes": os.fstat(stream.fileno()).st_size, "sha256": self._digests[name].hexdigest()}
        return found

    def fault(self, files: dict[str, dict[str, Any]]) -> str | None:
        """What of `files` is no longer as it was told; None where all is, and a run can go on with them."""
        for name, about in files.items():
            if name not in STREAMS:
                same = saved_model.content(self.folder / name) == about["sha256"]
                problem = None if same else f"{name}: altered or missing"
            elif not (self.folder / name).is_file():
                problem = f"{name} is missing"
            else:
                with open(self.folder / name, "rb") as stream:
                    found = hashlib.sha256(stream.read(about["bytes"])).hexdigest()
                problem = altered(f"the first {about['bytes']} bytes of {name}", about["sha256"], found)
            if problem:
                return problem
        return None

    def progress(self, round: int, rounds: int, seconds: float, metric: tuple[str, float], status: str) -> None:
        """Tell `heterobench watch`; at most twice a second while the run goes on."""
        now = time.time()
        if status == "running" and now - self._told < PROGRESS_SECONDS:
            return
        self._told = now
        keys = ("run_id", "benchmark", "preset", "scenario", "arm", "seed")
        left = seconds / round * (rounds - round) if round else None
        row = {key: self.config[key] for key in (*keys, "trial") if key in self.config} | {
            "round": round,
            "rounds": rounds,
            "metric": {"name": metric[0], "value": metric[1]},
            "seconds": seconds,
            "seconds_left": left,
            "updated": now,
            "pid": os.getpid(),
            "host": os.uname().nodename,
            "status": status,
        }
        with writing(self.folder / record.PROGRESS, len(record.line(row))):
            write_json(self.folder / record.PROGRESS, record.encode(row))

    def close(self) -> None:
        """Close the streams of a run that may go on later."""
        for stream in self._streams.values():
            stream.close()

    def end(self, status: str, **more: Any) -> None:
        """Close the streams; `end.json` is written last, and only a run that has it has ended.

        RunError where the streams of a finished run are not what was appended to them.
        """
        self.close()
        for name, digest in self._digests.items():
            problem = difference(self.folder / name, digest.hexdigest())
            if problem and status in record.COMPUTED:
                when = f"{problem}, while the run went on"
                raise RunError(f"{self.folder}: {when}. What to do: check the disk, then start the run again")
        record.seal(self.folder, status, **more)
