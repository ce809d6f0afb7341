"""Centralised training: SGD on everybody's data together. A reference, not a federated method.

One client that holds all training examples runs FedAvg: the same budget of epochs, the same local optimiser, no
communication between clients. It shows what the split costs.
"""

from __future__ import annotations

from dataclasses import replace

from heterobench.algorithm import Algorithm
from heterobench.algorithms import fedavg

HyperParameters = fedavg.HyperParameters


def make(hp: HyperParameters) -> Algorithm:
    return replace(fedavg.make(hp), tags=frozenset({"pooled", "drift-free"}))
