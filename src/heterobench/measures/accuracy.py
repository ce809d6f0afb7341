"""Loss and accuracy: on the global test set and its parts, and on clients that never train.

``test_loss`` (nats), ``test_accuracy``; ``stage_accuracy_<k>`` of the stages of a stream and
``test_accuracy_<attribute>_<value>`` of the domains of the data (`heterobench.opening`); where clients are held out
``held_out_accuracy`` (mean over their examples) and ``held_out_accuracy_worst`` (the worst client).

Personal models: means over the clients' own models, each on the whole global test set. A client that is held out has
no model of its own, so that there its metrics are NaN. So are the accuracies of a model that has diverged
(`heterobench.task.hits`), and means over models of which one has.
"""

from __future__ import annotations

from heterobench.measures.context import Answers, EvaluatedModel, losses, right
from heterobench.metrics.clients import held_out


def measure(model: EvaluatedModel) -> dict[str, float]:
    """The metrics of this module, accuracies in [0, 1]."""
    data = model.data

    def scores(answers: Answers) -> dict[str, float]:
        loss, hit = losses(answers.test, answers.test_labels), right(answers.test, answers.test_labels)
        whole = {"test_loss": float(loss.mean(dtype=float)), "test_accuracy": float(hit.mean(dtype=float))}
        return whole | {name: float(hit[rows].mean(dtype=float)) for name, rows in data.federation.slices.items()}

    found = model.mean(scores)
    if data.held_out.any():
        accuracy = model.test_scores["accuracy"]
        found |= held_out(accuracy, data.test_sizes, data.held_out, judged=not model.personal)
    return found
