"""The loss around the last model, and between it and the baseline's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heterobench.report.tables import by_metric, of_what
from heterobench.resolve import Benchmark

if TYPE_CHECKING:
    from heterobench.report.data import ReportData
    from heterobench.report.table import Table

KEY, TITLE = "landscape", "Loss landscape"
READING = (
    "Curvature and sharpness of the training loss at the last model, on a fixed probe of training examples. Compare "
    "them only between models of about equal training loss, and select nothing by them: flat is not better by itself.",
    "Barrier: how far the training loss rises above the straight line between the losses of two models, on the way "
    "from the baseline's last model of the same seed to the method's own. Near zero: both lie in one basin. Of a "
    "layer: only this layer moves. Units aligned: hidden units are matched before, since their order means nothing.",
)
CAPTIONS: dict[str, str] = {}
SHAPE = (
    *("hessian_trace", "hessian_top_eigenvalue", "hessian_bottom_eigenvalue"),
    *("sharpness", "adaptive_sharpness", "gradient_norm"),
)
BARRIERS = ("barrier", "error_barrier", "barrier_aligned", "barrier_layer_largest")


def table_names(benchmark: Benchmark) -> tuple[str, ...]:
    landscape = ("landscape",) if "landscape" in benchmark.metrics else ()
    return landscape + (("connectivity", "connectivity-layers") if "connectivity" in benchmark.metrics else ())


def figure_names(benchmark: Benchmark) -> tuple[str, ...]:
    return ()


def tables(data: ReportData) -> list[Table]:
    probe = "Loss: cross-entropy in nats on the training probe, the same examples for all methods of a seed."
    names = table_names(data.benchmark)
    layers = {f"barrier_layer_{name}": ("", name) for name in of_what(data, "last", "barrier_layer")}
    made = {
        "landscape": lambda name: by_metric(data, name, "Around the last model", "last", SHAPE, (probe,)),
        "connectivity": lambda name: by_metric(data, name, "On the way from the baseline", "last", BARRIERS, (probe,)),
        "connectivity-layers": lambda name: by_metric(
            data, name, "Barriers of single layers (nats)", "last", list(layers), (probe,), columns=layers
        ),
    }
    return [made[name](name) for name in names]


def figures(data: ReportData) -> dict[str, Any]:
    return {}
