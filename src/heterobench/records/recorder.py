"""The writing side of a record (see `heterobench.records.record` for the files)."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from heterobench.errors import RunError
from heterobench.files import file_digest, read_json, room, write_json
from heterobench.records import record

PROGRESS_SECONDS = 0.5


class Recorder:
    """Appends to the record of one run; opened anew it goes on where a checkpoint says.

    A directory that belongs to another run (other configuration, data, code) is emptied first.
    """

    def __init__(self, folder: Path, config: dict[str, Any]):
        self.folder, self.config = folder, config
        self._told = 0.0
        self._streams: dict[str, Any] = {}
        known = folder / record.CONFIG
        if not known.is_file() or read_json(known)["run_id"] != config["run_id"]:
            shutil.rmtree(folder, ignore_errors=True)
            write_json(known, config)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to compute, be it that the run has diverged."""
        return record.Record(self.folder).computed

    def begin(self, provenance: dict[str, Any], offsets: dict[str, int]) -> None:
        """Cut the streams back to `offsets` (bytes, by file name; 0 where absent) and open them for appending."""
        write_json(self.folder / record.PROVENANCE, provenance)
        (self.folder / record.END).unlink(missing_ok=True)
        for name in (record.ROUNDS, record.TIMING):
            stream = open(self.folder / name, "ab")  # noqa: SIM115  open for the length of the run
            if stream.tell() < offsets.get(name, 0):
                raise RunError(
                    f"{self.folder / name}: {stream.tell()} bytes, but the checkpoint was written after "
                    f"{offsets[name]}. What to do: remove {self.folder}, and the run starts anew"
                )
            stream.truncate(offsets.get(name, 0))
            self._streams[name] = stream

    def append(self, name: str, row: dict[str, Any]) -> None:
        line = record.line(row).encode()
        with room(self.folder / name, len(line)):
            self._streams[name].write(line)
            self._streams[name].flush()

    def offsets(self) -> dict[str, int]:
        """Bytes written so far, safely on disk: what a checkpoint has to remember."""
        for stream in self._streams.values():
            os.fsync(stream.fileno())
        return {name: os.fstat(stream.fileno()).st_size for name, stream in self._streams.items()}

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
        with room(self.folder / record.PROGRESS, len(record.line(row))):
            write_json(self.folder / record.PROGRESS, record.encode(row))

    def close(self) -> None:
        """Close the streams of a run that may go on later."""
        for stream in self._streams.values():
            stream.close()

    def end(self, status: str, **more: Any) -> None:
        """Close the streams; `end.json` is written last, and only a run that has it has ended."""
        self.close()
        if status in record.COMPUTED:
            shutil.rmtree(self.folder / record.CHECKPOINTS, ignore_errors=True)
        rounds = self.folder / record.ROUNDS
        digest = file_digest(rounds) if rounds.is_file() else None
        write_json(self.folder / record.END, {"status": status, "digest": digest} | more)
