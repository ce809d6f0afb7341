"""Meters that have to be looked at now and then: in a thread, and whenever somebody asks."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


class Sampled:
    """A meter of the hardware that adds up what it sees.

    `look` returns the J since the last look. It is called every `seconds` by a thread and by `joules`, one at a time.
    An error of the kind `errors`, of a counter that is gone, makes the total NaN and is told once: a run does not end
    for its meter.
    """

    measured = True

    def __init__(
        self, method: str, scope: str, look: Callable[[], float], seconds: float, errors: type[Exception] | tuple
    ):
        self.method, self._scope = method, scope
        self._look, self._errors = look, errors
        self._total, self._lock, self._ended = 0.0, threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(seconds,), name=method, daemon=True)
        self._thread.start()

    def _watch(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            self.joules()

    def joules(self) -> float:
        with self._lock:
            if not math.isnan(self._total):
                try:
                    self._total += max(self._look(), 0.0)
                except self._errors as error:
                    log.warning(
                        "%s can no longer be read (%s): the energy of this run is not known", self.method, error
                    )
                    self._total = math.nan
            return self._total

    def about(self) -> dict[str, Any]:
        return {"method": self.method, "measured": True, "scope": self._scope}

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
