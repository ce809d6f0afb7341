"""Means and covariances of classes, pooled from clients, and examples drawn from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


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
        """Draws [M, F] from N(mu_c, Sigma_c), of standard normal noise [M, F].

        With at most F examples Sigma_c is singular, and has no Cholesky factor. Its symmetric root is the one that
        does not depend on the signs of eigenvectors; eigenvalues below F eps times the largest are rounding, and 0.
        """
        from torch import finfo, from_numpy, linalg

        s, q = linalg.eigh(self.covariance[c])
        root = s.where(s > len(s) * finfo(s.dtype).eps * s[-1], s.new_zeros(())).sqrt()
        return self.mean[c] + from_numpy(noise).to(q.device) @ (q * root) @ q.T
