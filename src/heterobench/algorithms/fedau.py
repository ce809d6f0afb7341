"""FedAU: clients that come at unknown rates are weighted by the mean gap between the rounds in which they came.

Wang, Ji, "A Lightweight Method for Tackling Unknown Participation Statistics in Federated Averaging", ICLR 2024,
arXiv 2306.03401, with details from the authors' code.

Symbols: Delta_n = y_n - x; omega_n mean of the gaps that client n has recorded before this round, 1 while there are
none; K = cutoff; N population; eta_g = server_lr. The server moves by eta_g / N times the sum of omega_n Delta_n over
those who came, so that a client of rate p has weight p omega ~ 1. A gap ends when the client comes, and after K rounds
without it; counting begins at round 0, and rounds in which nobody comes count.

Gaps cover all rounds up to the last one in which the client came, so their sum is that round's number (from 1), and
the client keeps two numbers: `rounds` covered and `gaps` recorded. After `absent` rounds floor(absent / K) gaps of K
rounds have been cut off in the meantime; that of this round is recorded after its update.
Deviation: local steps are the table's epochs and step sizes; the authors' code takes the same number of full mini-
batches from everybody and halves the step size late. Its baseline that averages over all N without weights is K = 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from heterobench.algorithm import Algorithm, Neutral, State
from heterobench.algorithms import fedavg
from heterobench.config.numbers import Count

if TYPE_CHECKING:
    from torch import Tensor


class HyperParameters(fedavg.HyperParameters):
    cutoff: Count = Field(50, description="K: longest gap that is recorded; above the number of rounds: no cut-off")
    weighting: Literal["uniform"] = Field("uniform", description="omega_n / N is the weight")


EXCEPTIONS = {"empty_rounds": "gaps are counted in rounds of the budget, whether or not anybody else comes"}
NEUTRAL = Neutral({}, {"weighting": "uniform"}, tolerance=1e-12)  # everybody comes in every round


def recorded(client: State, round: int, cutoff: int) -> tuple[Tensor, Tensor]:
    """Sum and number of the gaps, int64 [] each, that a client has recorded before `round` (from 0)."""
    cut = (round - client["rounds"]) // cutoff
    return client["rounds"] + cut * cutoff, client["gaps"] + cut


def make(hp: HyperParameters) -> Algorithm:
    base = fedavg.make(hp)

    def init_client(theta):
        return {name: theta.new_zeros(()).long() for name in ("rounds", "gaps")}

    def finish(work, down, client, done):
        up, _ = base.finish(work, down, client, done)
        total, gaps = recorded(client, done.round, hp.cutoff)
        none = gaps == 0
        omega = (total + none).to(up["delta"]) / (gaps + none).to(up["delta"])
        kept = {"rounds": client["rounds"] * 0 + done.round + 1, "gaps": gaps + 1}
        return {"delta": omega * up["delta"]}, kept

    def serve(server, up, info):
        return {"theta": server["theta"] + hp.server_lr / info.population * up["delta"]}

    return replace(
        base,
        init_client=init_client,
        finish=finish,
        serve=serve,
        reduce={"delta": "sum"},
        tags=frozenset({"stateful"}),
    )
