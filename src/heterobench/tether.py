"""A command that ends when the process that started it does, however that ends, also by kill -9.

Between the two stands this module as a process of its own. It holds the reading end of a pipe that the one who started
it never writes to; the system closes the pipe with that process. Then the whole process group, the command's own
children included, is ended. This works the same on Linux and macOS.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

GRACE = 5.0  # seconds to end in, between SIGTERM and SIGKILL


def start(command: list[str], **options) -> subprocess.Popen:
    """`command` at the end of a tether, in a process group of its own; `options` are those of Popen."""
    tethered = [sys.executable, "-m", __name__, *command]
    return subprocess.Popen(tethered, stdin=subprocess.PIPE, start_new_session=True, **options)


def stop(process: subprocess.Popen) -> None:
    """End what `start` has started, with its children."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
    process.wait(GRACE)
    process.stdin.close()


def main(command: list[str]) -> int:
    """Run `command` until it ends or standard input does; returns its exit status."""
    # Not ignored, which the command would inherit: the group is told to end, and this process sees to it.
    signal.signal(signal.SIGTERM, lambda *_: None)
    loose = threading.Event()

    def watch() -> None:
        while os.read(0, 1):
            pass
        loose.set()
        os.killpg(0, signal.SIGTERM)
        time.sleep(GRACE)
        os.killpg(0, signal.SIGKILL)

    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as child:
        threading.Thread(target=watch, daemon=True).start()
        status = child.wait()
    if loose.is_set():
        os.killpg(0, signal.SIGKILL)  # children that outlived the command
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
