"""How accuracy and loss are spread over clients, on each client's own test examples; held out clients aside.

Accuracy of client k: A_k over its n_k test examples; loss L_k their mean cross-entropy (nats); K clients with examples.

=================================  ==================================================================================
client_accuracy_mean               sum A_k / K
client_accuracy_weighted           sum n_k A_k / sum n_k: that of all their examples together
client_accuracy_std                population standard deviation over clients
client_accuracy_chance             the standard deviation that few examples alone would give: sqrt(mean A (1 - A) / n)
client_accuracy_excess             what is left of the standard deviation beyond that, sqrt(max(0, std^2 - chance^2))
client_accuracy_variation          coefficient of variation, std / mean
client_accuracy_gini, _jain        Gini index (0: all equal) and Jain's index (1: all equal)
client_accuracy_divergence         KL divergence of A / sum A from equal shares, nats (0: all equal)
client_accuracy_min                the worst client
client_accuracy_worst_5            mean of the worst max(1, ceil(K / 20)) clients
client_accuracy_worst_decile       mean of the worst max(1, ceil(K / 10)) clients, ...
client_accuracy_best_decile        ... and of as many best ones
client_loss_mean                   sum L_k / K
client_loss_max                    the largest L_k: the agnostic loss of AFL (arXiv 1902.00146)
client_loss_worst_decile           mean loss of the worst tenth of all examples' weight (CVaR at 0.1, p_k = n_k / n)
client_loss_tilted                 ln sum p_k exp(L_k), the objective of TERM at t = 1 (arXiv 2007.01162)
=================================  ==================================================================================

With no client that has examples everything is NaN, and so are the losses where one is not finite. Of
`heterobench.metrics.uniformity` the q-FFL objective is left out (what one method trains for, in no unit that compares),
and the cosine to equal shares, which is the root of Jain's index.

Personal models: each client is judged by its own.
"""

from __future__ import annotations

import math

import numpy as np

from heterobench.measures.context import EvaluatedModel
from heterobench.metrics import uniformity
from heterobench.metrics.clients import means, spread

WORST = 0.1  # share of the weight in client_loss_worst_decile
TILT = 1.0


def measure(model: EvaluatedModel) -> dict[str, float]:
    """The metrics of the table above."""
    data = model.data
    present = np.repeat(~data.held_out, data.test_sizes)
    of = {name: values[present] for name, values in model.test_scores.items()}
    return shared(of["accuracy"], of["loss"], np.where(data.held_out, 0, data.test_sizes))


def shared(accuracy: np.ndarray, loss: np.ndarray, examples: np.ndarray) -> dict[str, float]:
    """The same of `accuracy` and `loss` [n], of client 0's examples, then client 1's, ...; `examples` int [clients]."""
    found = {f"client_accuracy_{name}": value for name, value in spread(accuracy, examples).items()}
    tested = examples > 0
    own = {name: means(values, examples)[tested] for name, values in (("accuracy", accuracy), ("loss", loss))}
    for kind, measures in (("accuracy", ACCURACY), ("loss", LOSS)):
        defined = tested.any() and np.isfinite(own[kind]).all()
        for name, of in measures.items():
            found[f"client_{kind}_{name}"] = float(of(own[kind], examples[tested])) if defined else math.nan
    return found


ACCURACY = {
    "chance": uniformity.binomial_floor,
    "excess": uniformity.excess_spread,
    "variation": lambda a, n: uniformity.coefficient_of_variation(a),
    "gini": lambda a, n: uniformity.gini(a),
    "jain": lambda a, n: uniformity.jain(a),
    "divergence": lambda a, n: uniformity.divergence_from_uniform(a),
    "min": lambda a, n: a.min(),
    "worst_5": lambda a, n: uniformity.worst_share(a, 5),
    "best_decile": lambda a, n: uniformity.best_share(a, 10),
}
LOSS = {
    "mean": lambda loss, n: loss.mean(),
    "max": lambda loss, n: uniformity.agnostic_loss(loss),
    "worst_decile": lambda loss, n: uniformity.conditional_value_at_risk(loss, WORST, n),
    "tilted": lambda loss, n: uniformity.tilted_loss(loss, TILT, n),
}
