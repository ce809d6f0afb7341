"""A federation whose answers are known in closed form: each client minimises a quadratic.

f_i(theta) = 1/2 sum_k a_ik (theta_k - b_ik)^2. A client's examples are copies of the one row [a_i, b_i], so that
every mini-batch of a client has the exact gradient a_i (theta - b_i), and numbers of examples set weights and steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import torch

from heterobench import registry
from heterobench.algorithm import Head
from heterobench.config.schema import Budget, ScheduleFile
from heterobench.engine.synchronous import RunState, Setting, advance, begin
from heterobench.federation import Examples, Federation
from heterobench.task import head_gradient
from heterobench.training import thetas

DIMENSIONS = 5
FULL = ScheduleFile(title="everybody")


class QuadraticTask:
    """Task over rows x = [a, b] of shape [B, 2 d]; theta is float64 [d].

    A quadratic has no representation: its features and logits are constant, so terms of them have no gradient. To a
    method that asks for the last linear layer, theta is the weight of one constant feature.
    """

    device = torch.device("cpu")
    sizes, shapes = (DIMENSIONS,), ((DIMENSIONS, 1),)
    head = Head(0, classes=DIMENSIONS, features=1, bias=False)

    def init(self, seed):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(DIMENSIONS, generator=generator, dtype=torch.float64)

    def features(self, theta, batch):
        return torch.ones(len(batch.x), 1, dtype=theta.dtype)

    def grad(self, theta, batch, term=None):
        a, b = batch.x.chunk(2, dim=1)
        loss, g = 0.5 * (a * (theta - b) ** 2).sum(1), a * (theta - b)
        if batch.weight is None:
            return g.mean(0), {"loss": loss.mean()}
        return batch.weight @ g, {"loss": batch.weight @ loss}

    def mean_loss(self, theta, batch):
        a, b = batch.x.chunk(2, dim=1)
        return 0.5 * (a * (theta - b) ** 2).sum(1).mean()

    def represent(self, theta, x):
        return 1 + 0 * x.sum(1, keepdim=True)

    def head_grad(self, theta, batch):
        return head_gradient(self.head, theta, batch)

    def functional(self):
        return self

    def scores(self, theta, batches):
        rows = [batch.x.chunk(2, dim=1) for batch in batches]
        loss = torch.cat([0.5 * (a * (theta - b) ** 2).sum(1) for a, b in rows])
        return {"loss": loss, "accuracy": 1 / (1 + loss)}


@dataclass(frozen=True)
class Quadratics:
    """Curvatures a [N, d] and minimisers b [N, d] of N clients, n_i examples each."""

    a: np.ndarray
    b: np.ndarray
    n: np.ndarray

    @classmethod
    def draw(cls, clients: int = 10, seed: int = 7, unequal: bool = False) -> Quadratics:
        rng = np.random.default_rng(seed)
        n = 1 + np.arange(clients) % 4 if unequal else np.full(clients, 3)
        return cls(rng.uniform(0.2, 2.0, (clients, DIMENSIONS)), rng.normal(size=(clients, DIMENSIONS)), n)

    def federation(self) -> Federation:
        x = np.repeat(np.hstack([self.a, self.b]), self.n, axis=0)
        pool = Examples(torch.from_numpy(x), torch.zeros(len(x), dtype=torch.int64))
        rows = np.split(np.arange(len(x)), np.cumsum(self.n)[:-1])
        return Federation(pool, rows, rows, rows, pool)

    def weights(self, weighting: str) -> np.ndarray:
        return self.n / self.n.sum() if weighting == "weighted" else np.full(len(self.n), 1 / len(self.n))

    def optimum(self, weighting: str) -> np.ndarray:
        """Minimiser [d] of the average of the f_i."""
        p = self.weights(weighting)[:, None]
        return (p * self.a * self.b).sum(0) / (p * self.a).sum(0)

    def sharp_optimum(self, weighting: str, rho: float) -> np.ndarray:
        """Zero [d] of the average of the gradients that clients take a step of length rho uphill (fedspeed).

        sum_i p_i a_i (x + rho u_i - b_i) = 0, with u_i the direction of a_i (x - b_i).
        """
        p = self.weights(weighting)

        def average(x: np.ndarray) -> np.ndarray:
            g = self.a * (x - self.b)
            return p @ (g + rho * self.a * g / (np.linalg.norm(g, axis=1, keepdims=True) + 1e-7))

        return scipy.optimize.root(average, self.optimum(weighting), tol=1e-13).x

    def fixed_point(self, weighting: str, lr: float, steps: np.ndarray, mu: float = 0.0, normalised: bool = False):
        """Where averaging of `steps` exact local steps stalls [d] (cards fedavg 2, fedprox 3, fednova 4).

        A client moves from x by (1 - rho_i) (y*_i - x), with y* = (a b + mu x)/(a + mu) and
        rho = (1 - lr (a + mu))^steps, which is r_i (b_i - x) with r_i = (1 - rho_i) a_i/(a_i + mu);
        FedNova divides r_i by its accumulated weight.
        """
        p, a = self.weights(weighting)[:, None], self.a
        r = (1 - (1 - lr * (a + mu)) ** steps[:, None]) * a / (a + mu)
        if normalised:
            r = r / steps[:, None]
        return (p * r * self.b).sum(0) / (p * r).sum(0)


def build(name: str, **settings):
    """The algorithm called `name` with hyper-parameters `settings`, and these hyper-parameters."""
    module = registry.algorithm(name)
    hp = module.HyperParameters(**settings)
    return module.make(hp), hp


def setting(algorithm, federation, task=None, *, rounds=1, epochs=5, batch_size=10**6, seed=0, schedule=FULL):
    budget = Budget(rounds=rounds, local_epochs=epochs, batch_size=batch_size)
    return Setting(federation, task or QuadraticTask(), algorithm, schedule, budget, seed)


def run(setting: Setting, state: RunState | None = None) -> RunState:
    """All rounds of the budget."""
    state = state or begin(setting)
    while state.round < setting.budget.rounds:
        state = advance(setting, state)
    return state


def settle(setting: Setting, clients: int, rounds: int) -> RunState:
    """The state after `rounds` rounds, or once the evaluated models have stood still for ten rounds."""
    state, still = begin(setting), 0
    before = thetas(setting, state, clients)
    for _ in range(rounds):
        state = advance(setting, state)
        now = thetas(setting, state, clients)
        still = still + 1 if (now - before).abs().max() < 1e-11 else 0
        if still == 10:
            break
        before = now.clone()
    return state
