"""What each metric of an evaluation is called, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """`scale` turns stored values into those of a table (1 = 100 %); `direction` None: no value is better."""

    title: str
    unit: str = ""
    scale: float = 1.0
    direction: str | None = None
    digits: int | None = 1
    """Decimals in tables; None: as many as the largest value of a column needs for three digits."""


METRICS = {
    "test_accuracy": Metric("Test accuracy", "%", 100, "max"),
    "test_loss": Metric("Test loss", "", 1, "min", 3),
    "validation_accuracy": Metric("Validation accuracy", "%", 100, "max"),
    "client_accuracy_mean": Metric("Mean", "%", 100, "max"),
    "client_accuracy_weighted": Metric("Weighted mean", "%", 100, "max"),
    # a method that is equally bad for everybody has the smallest spread: small is not better by itself
    "client_accuracy_std": Metric("Std. dev.", "points", 100, None),
    "client_accuracy_worst_decile": Metric("Worst decile", "%", 100, "max"),
    "bytes_up": Metric("Sent up", "MB", 1e-6, None, None),
    "bytes_down": Metric("Sent down", "MB", 1e-6, None, None),
    "seconds": Metric("Wall time", "s", 1, None, None),
    "rounds_to_target": Metric("Rounds to target", "", 1, "min"),
    "seconds_to_target": Metric("Time to target", "s", 1, "min", None),
}

CENSORED_AT = {"rounds_to_target": "rounds", "seconds_to_target": "seconds"}
"""Not finite = never reached: the true value is above the run's whole rounds, or seconds."""
