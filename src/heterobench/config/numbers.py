"""The ranges of numbers, named. Every number of a parameter file and of the command line is one of these.

Upper ends are where no sensible value lies any more, and far below where memory, time or a type's range ends: what is
beyond them is a slip that is told before anything runs.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from heterobench.errors import short

LARGEST = 1e20  # of real numbers: its product with another one still has a place in single precision


def _number(value: Any) -> Any:
    """Python holds true for 1; whoever writes it where a number stands means something else."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number (found {value})")
    return value


def _whole(low: int, high: int) -> Any:
    return Annotated[int, Field(strict=True, ge=low, le=high)]


Seed = _whole(0, 2**32 - 1)  # what numpy, torch and scikit-learn all take
SeedCount = _whole(1, 1000)
ClientNumber = _whole(0, 9_999_999)
Few = _whole(1, 1000)  # processes, threads, layers, heads, trials
FewOrNone = _whole(0, 1000)
Count = _whole(1, 1_000_000)  # rounds, epochs, widths, samples of a window
CountOrNone = _whole(0, 1_000_000)
Clients = _whole(1, 10_000_000)
Examples = _whole(1, 10**9)
ExamplesOrNone = _whole(0, 10**9)
Bytes = _whole(1, 2**50)
Label = _whole(0, 65_535)
Pixel = _whole(1, 255)
Port = _whole(1, 65_535)
Process = _whole(1, 2**22)  # the largest number that Linux gives to a process

Share = Annotated[float, Field(strict=True, ge=0, le=1)]
PositiveShare = Annotated[float, Field(strict=True, gt=0, le=1)]
ProperShare = Annotated[float, Field(strict=True, gt=0, lt=1)]
Decay = Annotated[float, Field(strict=True, ge=0, lt=1)]  # of an average over rounds or steps
Positive = Annotated[float, Field(strict=True, gt=0, le=LARGEST, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, ge=0, le=LARGEST, allow_inf_nan=False)]
Real = Annotated[float, Field(strict=True, ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
Spread = Annotated[float, Field(strict=True, ge=0, le=20, allow_inf_nan=False)]  # of a logarithm: a factor of e^20
PositiveSpread = Annotated[float, Field(strict=True, gt=0, le=20, allow_inf_nan=False)]
Seconds = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]

Zero = Annotated[Literal[0], BeforeValidator(_number)]
One = Annotated[Literal[1], BeforeValidator(_number)]


def argument(kind: Any) -> Callable[[str], int]:
    """A whole number of the command line in the range of `kind`, as a type of argparse."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,30}", text):  # int() would take 1_000 and digits of other scripts as well
            raise argparse.ArgumentTypeError(f"must be a whole number (found {short(text)})")
        try:
            return TypeAdapter(kind).validate_python(int(text))
        except ValidationError as error:
            raise argparse.ArgumentTypeError(f"{error.errors()[0]['msg']} (found {text})") from None

    return read
