"""Which clients are there in a round: patterns over time, and how often each client comes.

Every draw is keyed by (seed, round) and taken for all clients in the order of their ids, so whether a client is there
is a function of (seed, round, client) and its rate: all methods of a table see the same pattern, and a resumed run goes
on with it. The patterns and the rates that follow the labels are those of FedAU's experiments (Wang and Ji, ICLR 2024,
arXiv 2306.03401, and the authors' code); p_n is the rate of client n, the share of the rounds in which it is there.

bernoulli   there with probability p_n in every round, independently.
markov      a chain of two states that begins in its stationary law: to come has probability a_n and to go has
            b_n = a_n (1/p_n - 1), with a_n = `transition`; where b_n would be above 1 both are divided by it.
cyclic      there in max(round(p_n T), 1) consecutive rounds of every T = `period`, from an offset of its own.

Two deviations from that code: offsets of the cycles are uniform over the whole period (there everybody begins absent),
and rates are at most 1 (there a larger one is an error).
"""

from __future__ import annotations

import numpy as np

from heterobench import keyed
from heterobench.config.schema import Availability
from heterobench.federation import Rows, joined, sizes


def rates(rule: Availability, seed: int, rows: Rows, labels: np.ndarray) -> np.ndarray:
    """Rates p_n, float64 [clients].

    `rows` are the clients' training examples, `labels` [n] the classes 0..C-1 of the pool. Where rates follow the
    labels, p_n = max(minimum, mean C <q, mix_n>), at most 1, with q ~ Dirichlet(alpha) over the classes and mix_n the
    shares of the classes in client n's examples.
    """
    if rule.by_label is None:
        return np.full(len(rows), rule.mean)
    classes = int(labels.max()) + 1
    q = keyed.generator(seed, "availability of classes").dirichlet(np.full(classes, rule.by_label.alpha))
    counts = sizes(rows)
    owner = np.repeat(np.arange(len(rows)), counts)
    liking = np.bincount(owner, q[labels[joined(rows)]], len(rows)) / np.maximum(counts, 1)
    return np.clip(rule.mean * classes * liking, rule.by_label.minimum, 1.0)


def transitions(rates: np.ndarray, come: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities to come and to go, each [clients]; the rates are the stationary law of the chain."""
    go = come * (1 / rates - 1)
    scale = np.maximum(go, 1)
    return come / scale, go / scale


class Attendance:
    """Who is there: bool [clients] for each round (from 0).

    A function of the round alone. A Markov chain is followed from round 0; its state in the newest round that was asked
    for is kept, which saves time and changes nothing.
    """

    def __init__(self, rule: Availability, seed: int, rates: np.ndarray):
        self.rule, self.seed, self.rates = rule, seed, rates
        self._kept: tuple[int, np.ndarray] | None = None

    def __call__(self, round: int) -> np.ndarray:
        by_name = {"bernoulli": self._bernoulli, "markov": self._markov, "cyclic": self._cyclic}
        there = by_name[self.rule.pattern](round)
        there.flags.writeable = False  # it may be the state that a chain goes on from
        return there

    def _uniform(self, round: int) -> np.ndarray:
        return keyed.generator(self.seed, "availability", round).random(len(self.rates))

    def _bernoulli(self, round: int) -> np.ndarray:
        return self._uniform(round) < self.rates

    def _markov(self, round: int) -> np.ndarray:
        if self._kept is None or self._kept[0] > round:
            self._kept = 0, self._bernoulli(0)
        come, go = transitions(self.rates, self.rule.transition)
        now, there = self._kept
        for later in range(now + 1, round + 1):
            there = self._uniform(later) < np.where(there, 1 - go, come)
        self._kept = round, there
        return there

    def _cyclic(self, round: int) -> np.ndarray:
        period = self.rule.period
        length = np.maximum(np.floor(period * self.rates + 0.5), 1)
        first = np.floor(period * keyed.generator(self.seed, "availability offsets").random(len(self.rates)))
        return (round + first) % period < length
