"""Cells that say more than a number with its t interval."""

from __future__ import annotations

import math

from heterobench.report.table import Cell, Source

LEAST_P = 0.001
"""Smaller p-values are printed as "< 0.001"."""


def plain(value: float, digits: int) -> str:
    """A number as tables print it."""
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")


def interval(low: float, high: float, digits: int, of: tuple[Source, ...] = ()) -> Cell:
    """An interval that need not lie around its estimate evenly; a dash where an end is not finite."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return Cell(of=of)
    text = f"[{plain(low, digits)}, {plain(high, digits)}]"
    return Cell((low + high) / 2, (high - low) / 2, text=text, of=of)


def p_value(p: float, of: tuple[Source, ...] = ()) -> Cell:
    """A p-value with three decimals; bold below 0.05."""
    if not math.isfinite(p):
        return Cell(of=of)
    return Cell(p, text="< 0.001" if p < LEAST_P else f"{p:.3f}", bold=p < 0.05, of=of)


def span(low: float, high: float, of: tuple[Source, ...] = (), bold: bool = False) -> Cell:
    """From one rank to another, "2–5" or "3"; sorted by the worse one."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return Cell(of=of)
    text = f"{low:g}" if low == high else f"{low:g}–{high:g}"
    return Cell(high, text=text, bold=bold, of=of)
