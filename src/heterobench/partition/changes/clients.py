"""Clients that never train."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field, model_validator

from heterobench.config.numbers import ClientNumber, Clients, ProperShare
from heterobench.config.strict import Strict
from heterobench.errors import PartitionError
from heterobench.partition.changes.registry import View, change, exactly_one


class HeldOutClients(Strict):
    number: Clients | None = Field(None, description="so many clients, drawn")
    share: ProperShare | None = Field(None, description="of the clients, drawn; rounded, at least one")
    clients: list[ClientNumber] | None = Field(None, min_length=1, description="these clients, from 0")

    @model_validator(mode="after")
    def _one_rule(self):
        return exactly_one(self, "number", "share", "clients")


@change("held-out-clients", HeldOutClients)
def held_out_clients(view: View, options: HeldOutClients, generator: np.random.Generator) -> View:
    """Some clients are never seen in training: all that they hold is for testing.

    With one client a domain, the clients of a domain are an unseen domain.

    Source: Yuan et al., "What Do We Mean by Generalization in Federated Learning?", arXiv 2110.14216 (the
    participation gap: unparticipating clients are tested apart). Deviation: none.
    """
    if view.held_out is not None:
        raise PartitionError("two changes hold clients out; keep one")
    if options.clients is not None:
        chosen = np.unique(options.clients)
        if chosen[-1] >= view.clients:
            raise PartitionError(f"held-out-clients: there is no client {chosen[-1]} among {view.clients}")
    else:
        number = options.number or max(int(options.share * view.clients + 0.5), 1)
        chosen = generator.permutation(view.clients)[:number]
    held_out = np.zeros(view.clients, bool)
    held_out[chosen] = True
    if not np.any(np.isin(view.owner, np.flatnonzero(~held_out))):
        raise PartitionError(f"held-out-clients: {held_out.sum()} of {view.clients} leave nobody with data to train")
    return replace(view, held_out=held_out)
