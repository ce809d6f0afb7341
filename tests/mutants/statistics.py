"""Methods that no contract sees: sums over all examples, numbers of directions, weights of a mean."""

from __future__ import annotations

from mutants.mutation import once

HERE = "recomputed/test_methods.py::"
AFL = HERE + "test_afl_solves_least_squares_over_all_examples"
GAUSSIANS = HERE + "test_gaussians_are_of_all_examples"
GGEUR = HERE + "test_ggeur_takes_the_plain_mean"
GEOMETRY = HERE + "test_ggeur_draws_with_the_covariance_of_all_clients_together"
FEDLD = HERE + "test_fedld_rounds_the_number_of_directions_down"
DEFAULTS = HERE + "test_diloco_has_the_published_settings_by_default"
NESTEROV = HERE + "test_dilocos_outer_steps_are_nesterov_on_the_plain_mean"
WHOLE = "whole = algorithm.statistics or algorithm.whole("

MUTATIONS = [
    once("executor/local.py", "AFL's sums are cut short by local_work", WHOLE, "whole = algorithm.whole(", AFL),
    once(
        "executor/local.py",
        "CCVR's statistics are cut short by local_work",
        WHOLE,
        "whole = algorithm.whole(",
        GAUSSIANS + "[ccvr]",
    ),
    once(
        "executor/local.py",
        "GGEUR's statistics are cut short by local_work",
        WHOLE,
        "whole = algorithm.whole(",
        GAUSSIANS + "[ggeur]",
    ),
    once(
        "engine/synchronous.py",
        "statistics are of the budget's epochs",
        "1 if algorithm.statistics else setting.budget.local_epochs",
        "setting.budget.local_epochs",
        GAUSSIANS,
    ),
    once(
        "algorithms/_gaussians.py",
        "biased covariances of clients",
        "(count - 1).clamp(min=1)",
        "count.clamp(min=1)",
        GAUSSIANS,
    ),
    once("algorithms/_gaussians.py", "no part between clients", "(within + between)", "within", GEOMETRY),
    once(
        "algorithms/_gaussians.py",
        "the pooled mean is that of clients",
        "(n * self.mean).sum(0) / total.clamp(min=1)[:, None]",
        "self.mean.mean(0)",
        GEOMETRY,
    ),
    once("algorithms/ggeur.py", "the unbiased covariance", "(total - 1).clamp(min=0)", "total", GEOMETRY),
    once(
        "algorithms/ggeur.py",
        "the mean has other weights than those asked for",
        "return replace(base, virtual=virtual, grad=grad, serve=serve)",
        'other = {"delta": {"uniform": "weighted", "weighted": "uniform"}[hp.weighting]}\n'
        "        return replace(base, virtual=virtual, grad=grad, serve=serve, reduce=other)",
        GGEUR,
    ),
    once(
        "algorithms/fedld.py",
        "the number of directions is rounded",
        "max(1, int(m * share))",
        "max(1, round(m * share))",
        FEDLD,
    ),
    once("algorithms/fedld.py", "one direction less", "max(1, int(m * share))", "max(1, int(m * share) - 1)", FEDLD),
    once(
        "algorithms/diloco.py",
        "clients count by their examples by default",
        'Field("uniform", description="of the clients',
        'Field("weighted", description="of the clients',
        NESTEROV,
    ),
    once(
        "algorithms/diloco.py",
        "another outer step size by default",
        "server_lr: Positive = Field(0.7,",
        "server_lr: float = Field(1.0,",
        DEFAULTS,
    ),
    once(
        "algorithms/diloco.py",
        "heavy-ball instead of Nesterov momentum",
        'hp.server_lr * (up["delta"] + hp.outer_momentum * v)',
        "hp.server_lr * v",
        NESTEROV,
    ),
    once(
        "algorithms/afl_analytic.py", "the penalties stay", "info.cohort * hp.gamma if hp.cleanup else 0.0", "0.0", AFL
    ),
]
