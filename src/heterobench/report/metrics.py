"""What each metric of an evaluation is called, and which way is better.

What a metric is stands in `heterobench.measures`, in the module of its group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Metric:
    """`scale` turns stored values into those of a table (1 = 100 %); `direction` None: no value is better."""

    title: str
    unit: str = ""
    scale: float = 1.0
    direction: str | None = None
    digits: int | None = 1
    """Decimals in tables; None: as many as the largest value of a column needs for three digits."""


class Metrics(Mapping[str, Metric]):
    """Metrics by name. A family has one metric for each of something: ``<family>_<of what>``, found by its own name.

    Iteration goes over the single metrics only.
    """

    def __init__(self, single: dict[str, Metric], families: dict[str, Metric]):
        self.single, self.families = single, families

    def __getitem__(self, name: str) -> Metric:
        if name in self.single:
            return self.single[name]
        found = [family for family in self.families if name.startswith(f"{family}_") and len(name) > len(family) + 1]
        if not found:
            raise KeyError(name)
        family = max(found, key=len)
        metric, what = self.families[family], name.removeprefix(f"{family}_").replace("_", " ")
        return replace(metric, title=f"{metric.title}, {what}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.single)

    def __len__(self) -> int:
        return len(self.single)


# a method that is equally bad for everybody has the smallest spread and the smallest gaps, and calibration errors are
# no proper scores: there small is not better by itself. Nor is anything to be ranked by the shape of a loss
SINGLE = {
    "test_accuracy": Metric("Test accuracy", "%", 100, "max"),
    "test_loss": Metric("Test loss", "", 1, "min", 3),
    "validation_accuracy": Metric("Validation accuracy", "%", 100, "max"),
    # clients
    "client_accuracy_mean": Metric("Mean", "%", 100, "max"),
    "client_accuracy_weighted": Metric("Weighted mean", "%", 100, "max"),
    "client_accuracy_std": Metric("Std. dev.", "points", 100),
    "client_accuracy_chance": Metric("Std. dev. by chance", "points", 100),
    "client_accuracy_excess": Metric("Std. dev. beyond chance", "points", 100),
    "client_accuracy_variation": Metric("Coefficient of variation", digits=3),
    "client_accuracy_gini": Metric("Gini index", digits=3),
    "client_accuracy_jain": Metric("Jain's index", digits=3),
    "client_accuracy_divergence": Metric("KL from equal shares", "nats", digits=3),
    "client_accuracy_min": Metric("Worst client", "%", 100, "max"),
    "client_accuracy_worst_5": Metric("Worst 5 %", "%", 100, "max"),
    "client_accuracy_worst_decile": Metric("Worst decile", "%", 100, "max"),
    "client_accuracy_best_decile": Metric("Best decile", "%", 100, "max"),
    "client_loss_mean": Metric("Mean loss", "", 1, "min", 3),
    "client_loss_max": Metric("Largest loss", "", 1, "min", 3),
    "client_loss_worst_decile": Metric("Loss, worst decile", "", 1, "min", 3),
    "client_loss_tilted": Metric("Tilted loss", "", 1, "min", 3),
    # calibration
    "nll": Metric("NLL", "nats", 1, "min", 3),
    "brier": Metric("Brier score", "", 1, "min", 3),
    "ece": Metric("ECE", "%", 100),
    "ece_mass": Metric("ECE, equal counts", "%", 100),
    "ece_classwise": Metric("ECE, classwise", "%", 100, digits=2),
    "ece_debiased": Metric("RMS error, debiased", "%", 100),
    "overconfidence": Metric("Overconfidence", "points", 100),
    "confidence_auroc": Metric("AUROC of confidence", "", 1, "max", 3),
    "risk_coverage": Metric("AURC", "", 1, "min", 3),
    "temperature": Metric("Temperature", digits=2),
    "nll_scaled": Metric("NLL, scaled", "nats", 1, "min", 3),
    "ece_scaled": Metric("ECE, scaled", "%", 100),
    # corrected labels
    "corrected_accuracy": Metric("Accuracy, corrected labels", "%", 100, "max", 2),
    "error_accuracy_published": Metric("On errors, published labels", "%", 100),
    "error_accuracy_corrected": Metric("On errors, corrected labels", "%", 100, "max"),
    # coherence
    "train_m_coherence": Metric("m-coherence, training", digits=2),
    "train_gradient_diversity": Metric("Gradient diversity, training", digits=3),
    "train_gradient_square": Metric("Mean squared gradient, training", digits=None),
    "test_m_coherence": Metric("m-coherence, test", digits=2),
    "test_gradient_diversity": Metric("Gradient diversity, test", digits=3),
    "test_gradient_square": Metric("Mean squared gradient, test", digits=None),
    "client_dissimilarity": Metric("Client dissimilarity B²", digits=2),
    "zeta_squared": Metric("ζ²", digits=None),
    "zeta_squared_unbiased": Metric("ζ², unbiased", digits=None),
    # landscape and connectivity, of the training loss
    "hessian_trace": Metric("Hessian trace", digits=None),
    "hessian_top_eigenvalue": Metric("Largest eigenvalue", digits=None),
    "hessian_bottom_eigenvalue": Metric("Smallest eigenvalue", digits=None),
    "sharpness": Metric("Sharpness", "nats", digits=3),
    "adaptive_sharpness": Metric("Adaptive sharpness", "nats", digits=3),
    "gradient_norm": Metric("Gradient norm", digits=3),
    "barrier": Metric("Barrier", "nats", digits=3),
    "error_barrier": Metric("Error barrier", "points", 100),
    "barrier_layer_largest": Metric("Largest barrier of a layer", "nats", digits=3),
    "barrier_aligned": Metric("Barrier, units aligned", "nats", digits=3),
    # costs
    "bytes_up": Metric("Sent up", "MB", 1e-6, None, None),
    "bytes_down": Metric("Sent down", "MB", 1e-6, None, None),
    "bytes": Metric("Sent", "MB", 1e-6, None, None),
    "seconds": Metric("Wall time", "s", 1, None, None),
    "gradient_examples": Metric("Gradients of examples", "10³", 1e-3, None, None),
    "flops": Metric("Operations", "GFLOP", 1e-9, None, None),
    "simulated_seconds": Metric("Simulated time", "s", 1, None, None),
    "joules": Metric("Energy", "J", 1, None, None),
    "rounds_to_target": Metric("Rounds to target", "", 1, "min"),
    "bytes_to_target": Metric("Sent to target", "MB", 1e-6, "min", None),
    "seconds_to_target": Metric("Time to target", "s", 1, "min", None),
    "simulated_seconds_to_target": Metric("Simulated time to target", "s", 1, "min", None),
    "joules_to_target": Metric("Energy to target", "J", 1, "min", None),
}

GAPS = {
    "demographic_parity": "Demographic parity gap",
    "equal_opportunity": "Equal opportunity gap",
    "equalised_odds": "Equalised odds gap",
    "accuracy_parity": "Accuracy gap",
}
DISPARITIES = ("global", "local", "unique", "redundant", "masked")
FAMILIES = {
    # fairness, by protected attribute
    **{name: Metric(title, "points", 100) for name, title in GAPS.items()},
    **{f"local_{name}": Metric(f"{title} within clients", "points", 100) for name, title in GAPS.items()},
    **{f"local_{name}_max": Metric(f"{title}, worst client", "points", 100) for name, title in GAPS.items()},
    **{f"local_{name}_undefined": Metric(f"{title}: clients without") for name, title in GAPS.items()},
    **{f"disparity_{name}": Metric(f"{name.capitalize()} disparity", "bits", digits=4) for name in DISPARITIES},
    "worst_group_accuracy": Metric("Worst group", "%", 100, "max"),
    "accuracy_limit": Metric("Limit of accuracy", "%", 100),
    # connectivity, by layer
    "barrier_layer": Metric("Barrier of layer", "nats", digits=3),
}

METRICS = Metrics(SINGLE, FAMILIES)

CENSORED_AT = {f"{cost}_to_target": cost for cost in ("rounds", "bytes", "seconds", "simulated_seconds", "joules")}
"""Not finite = never reached: the true value is above what the whole run cost."""
