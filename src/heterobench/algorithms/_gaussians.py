"""Means and covariances of classes: a round that collects them from clients, pooled, and examples drawn from them.

The round is one pass over the data with everything in float64, which is also what is sent: 8 C (F^2 + F + 1) bytes a
client. Who does not take part in it is not in the statistics.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from heterobench.algorithms._sums import loss, one_hot, rows

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from heterobench.algorithm import Algorithm, Head, OwnData


class Gaussians(NamedTuple):
    """count [..., C], mean [..., C, F] and unbiased covariance [..., C, F, F] of classes, float64.

    Without examples mean and covariance are 0, with one the covariance is.
    """

    count: Tensor
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of_sums(cls, sums: Tensor) -> Gaussians:
        """From sum (z, 1)^T (z, 1) [C, F + 1, F + 1] over the examples of each class."""
        count, mean = sums[:, -1, -1], sums[:, -1, :-1] / sums[:, -1, -1:].clamp(min=1)
        scatter = sums[:, :-1, :-1] - count[:, None, None] * mean[:, :, None] * mean[:, None, :]
        return cls(count.clone(), mean, scatter / (count - 1).clamp(min=1)[:, None, None])

    def pooled(self) -> Gaussians:
        """Those of all clients' examples together, of those of each client [K, C, ...].

        mu_c = sum_k n_kc mu_kc / N_c; (N_c - 1) Sigma_c = sum_k (n_kc - 1) S_kc + n_kc (mu_kc - mu_c)(mu_kc - mu_c)^T,
        which is CCVR's sum of n_kc mu_kc mu_kc^T minus N_c mu_c mu_c^T without its cancellation.
        """
        n, total = self.count[..., None], self.count.sum(0)
        mean = (n * self.mean).sum(0) / total.clamp(min=1)[:, None]
        apart = (self.mean - mean).transpose(0, 1)  # [C, K, F]
        between = (n.transpose(0, 1) * apart).transpose(1, 2) @ apart
        within = ((self.count - 1).clamp(min=0)[..., None, None] * self.covariance).sum(0)
        return Gaussians(total, mean, (within + between) / (total - 1).clamp(min=1)[:, None, None])

    def drawn(self, c: int, noise: np.ndarray) -> Tensor:
        """Draws [M, F] from N(mu_c, Sigma_c), of standard normal noise [M, F]."""
        return around(self.mean[c], root(self.covariance[c]), noise)


def root(covariance: Tensor, jitter: float = 0.0) -> Tensor:
    """The symmetric root [F, F] of covariance + jitter I.

    With at most F examples a covariance is singular, and has no Cholesky factor. The symmetric root is the one that
    does not depend on the signs of eigenvectors; eigenvalues below F eps times the largest are rounding, and 0.
    """
    from torch import finfo, linalg

    s, q = linalg.eigh(covariance)
    s = s.where(s > len(s) * finfo(s.dtype).eps * s[-1], s.new_zeros(()))
    return (q * (s + jitter).sqrt()) @ q.T


def around(z: Tensor, root: Tensor, noise: np.ndarray) -> Tensor:
    """Draws [M, F] around z [F] or [M, F], of the covariance with this root, of standard normal noise [M, F]."""
    from torch import from_numpy

    return z + from_numpy(noise).to(z.device) @ root


def features(theta: Tensor, own: OwnData) -> Tensor:
    """[n, F] of the client's examples."""
    from torch import cat

    from heterobench.task import CHUNK, Batch

    return cat([own.task.features(theta, Batch(x, x)) for x in own.x.split(CHUNK)])


def collecting(base: Algorithm, head: Head) -> Algorithm:
    """A round in which clients send the `Gaussians` of the last layer's inputs, stacked [K, ...] for `serve`."""

    def start(down, client):
        sums = down["theta"].double().new_zeros(head.classes, head.features + 1, head.features + 1)
        return {"theta": down["theta"], "sums": sums}

    def grad(work, batch, task):
        z = task.features(work["theta"], batch)
        x = rows(z, batch, constant=True)
        of_class = one_hot(batch.y, head.classes).T[:, :, None] * x  # [C, B, F + 1]
        return of_class.transpose(1, 2) @ x, {"loss": loss(head, work["theta"], z, batch)}

    def step(work, g, step):
        return work | {"sums": work["sums"] + g}

    def finish(work, down, client, done):
        return Gaussians.of_sums(work["sums"])._asdict(), client

    reduce = dict.fromkeys(Gaussians._fields, "stack")
    return replace(base, start=start, grad=grad, step=step, finish=finish, reduce=reduce, statistics=True)
