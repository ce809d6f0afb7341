"""The interface of an algorithm: a frozen set of pure functions over dictionaries of vectors.

theta, the parameters of a model, is one flat tensor of shape [P]; so the lines of an algorithm read like the lines
of its paper. States and messages are dictionaries from names to tensors. Nothing here imports torch: the functions
use the operators and methods of the tensors that they are given.

The four hooks without a default are FedAvg; a method replaces what differs (``dataclasses.replace``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

State = dict[str, "Tensor"]

REDUCERS = ("weighted", "uniform", "sum", "stack")
TAGS = {
    "drift-free": "reaches the optimum of the average loss although clients differ and take several local steps",
    "stateful": "clients keep a state between rounds",
    "personalised": "each client has a model of its own; there is no global one",
    "pooled": "all clients' data are brought together first: a reference that federated learning cannot use",
    "silent": "sends nothing: a reference without any collaboration",
    "head-only": "finds the last linear layer alone: needs a model that is nothing else but fixed functions",
    "length": "is told the number of rounds, and what a round does may depend on it: a longer run begins anew",
    "selective": "its server chooses who takes part: its cohorts are not those of the other methods of a table",
}


class Step(NamedTuple):
    """Where local training stands: `index` of the step within the round (from 0) and the step size `lr`."""

    index: int
    lr: float


class Done(NamedTuple):
    """What a client really did in a `round` (from 0): number of `steps`, and the sum of their step sizes."""

    steps: int
    lr_sum: float
    round: int = 0


class Info(NamedTuple):
    """What the server knows when it reduces a round.

    `turn`: how many rounds before this one anybody took part in, which is the round itself where somebody always does.
    `population` counts the clients that can take part (those with training examples), `cohort` those that did.
    `sizes`: how theta is cut into the tensors of the net, their numbers of entries in order. `seed`: of the run, for
    draws of the server's own (`heterobench.keyed`). `task`: of the run, for a server that computes with the net.
    """

    round: int
    cohort: int
    population: int
    sizes: tuple[int, ...] = ()
    seed: int = 0
    task: Any = None
    turn: int = 0


class Head(NamedTuple):
    """Where the net's last linear layer lies in theta.

    Its weight [classes, features] begins at entry `first`; its bias [classes], where it has one, comes next.
    """

    first: int
    classes: int
    features: int
    bias: bool

    @property
    def width(self) -> int:
        """Numbers per class: features, and one for the bias."""
        return self.features + self.bias

    def read(self, theta: Tensor) -> tuple[Tensor, Tensor | None]:
        """Views of theta: weight [classes, features], and bias [classes] where there is one."""
        size = self.classes * self.features
        part = theta[self.first : self.first + self.classes * self.width]
        return part[:size].view(self.classes, self.features), part[size:] if self.bias else None

    def written(self, theta: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """theta with another last layer; every other entry keeps its bits."""
        theta = theta.clone()
        for into, values in zip(self.read(theta), (weight, bias), strict=True):
            if into is not None:
                into.copy_(values)
        return theta


class Phase(NamedTuple):
    """Where a run stands: `round`, from 0, of `rounds`; `head`: the net's last linear layer; `shape` of an example.

    A turn is a round in which anybody takes part. `turn` counts those before this round, `turns` those of the run: the
    first and the last are turn 0 and turn `turns` - 1, whenever they come. Rounds without anybody between two turns
    have the number of the later one. `rounds` and `turns` are None for a method without the tag "length".
    """

    round: int
    rounds: int | None
    turn: int
    turns: int | None
    head: Head
    shape: tuple[int, ...] = ()


class LocalData(NamedTuple):
    """What a client can choose the batches of a round from.

    `count` examples, numbered from 0; batches of at most `size`; `epochs` of work. losses: theta [P] -> float64
    [count]. generator: purpose -> random numbers decided by (seed, round, client); those of "batches" shuffle the
    batches of every other method.
    """

    count: int
    size: int
    epochs: int
    losses: Callable[[Tensor], np.ndarray]
    generator: Callable[[str], np.random.Generator]


class Candidates(NamedTuple):
    """Whom a server can choose the participants of a `round` of `rounds` from (None without the tag "length").

    ids: int64 [N] of the clients that can take part, ascending; `count` of them do for every other method. losses:
    theta [P] -> float64 [N], the mean loss of each one's training examples, which costs a broadcast of the downlink and
    a number back from everybody. generator: random numbers decided by (seed, round).
    """

    round: int
    rounds: int | None
    ids: np.ndarray
    count: int
    losses: Callable[[Tensor], np.ndarray]
    generator: np.random.Generator


class OwnData(NamedTuple):
    """What a client can make examples of: its own, x [n, *shape] as a model sees them and y int64 [n], and the task.

    generator: purpose and numbers -> random numbers decided by (seed, client) and these, the same in every round.
    """

    x: Tensor
    y: Tensor
    task: Any
    generator: Callable[..., np.random.Generator]


def _no_state(theta: Tensor) -> State:
    return {}


def _send_all(server: State) -> State:
    return server


def _global_model(server: State) -> Tensor:
    return server["theta"]


def _same_for_everyone(server: State, client: State) -> Tensor:
    return server["theta"]


def _never(down: State, client: State) -> bool:
    return False


@dataclass(frozen=True)
class Algorithm:
    """Pure functions. S: server state, C: client state, D: downlink, W: working state, U: uplink.

    Only the working state may be updated in place (it belongs to the local training of one client in one round);
    everything else is read-only.
    """

    start: Callable[[State, State], State]
    """(D, C) -> W: working state at the beginning of local training; W["theta"] is the local model."""

    grad: Callable[[State, Any, Any], tuple[Tensor, dict[str, Tensor]]]
    """(W, batch, task) -> (g [P], aux): direction of one local step; aux["loss"] is the mean loss of the batch.

    A method that takes no gradient steps hands its own `step` whatever tensor it finds in the batch."""

    finish: Callable[[State, State, State, Done], tuple[State, State]]
    """(W, D, C, done) -> (U, C'): what goes up, and the client state that stays."""

    serve: Callable[[State, State, Info], State]
    """(S, reduced U, info) -> S'."""

    step: Callable[[State, Tensor, Step], State]
    """(W, g, step) -> W: the local optimiser. No entry of the result is the old tensor of another: copy its numbers."""

    lr: Callable[[int], float]
    """round -> local step size. Rounds are those of the budget, also the ones before in which nobody took part."""

    reduce: Mapping[str, str] = field(default_factory=dict)
    """Uplink entry -> reducer: weighted (by the clients' numbers of examples), uniform, sum, stack."""

    init_server: Callable[[Tensor], State] = lambda theta: {"theta": theta}
    init_client: Callable[[Tensor], State] = _no_state
    downlink: Callable[[State], State] = _send_all
    """S -> D: what is sent down, and counted in bytes."""

    model: Callable[[State], Tensor] = _global_model
    """S -> theta: the global model that is evaluated and saved."""

    personal: Callable[[State, State], Tensor] = _same_for_everyone
    """(S, C) -> theta of one client; asked for where the tag `personalised` is set."""

    batches: Callable[[State, State, LocalData], list[np.ndarray]] | None = None
    """(D, C, data) -> the batches of the local steps, numbers of examples of the data; None: all, epoch by epoch."""

    virtual: Callable[[State, State, OwnData], tuple[State, Tensor, Tensor]] | None = None
    """(D, C, own) -> (C, x [m, ...], y int64 [m]): examples that a client makes itself, and that its local training
    goes over in place of its own; None: its own. They need not look like those of the data set: `grad` finds in its
    batches what was made here. The client state that comes back, with the same entries, is the one that `start` and
    `finish` see. Not together with `batches`."""

    select: Callable[[State, Candidates], tuple[State, np.ndarray]] | None = None
    """(S, candidates) -> (S', ids of the participants); None: those whom the schedule samples, the same for all methods
    of a table."""

    chance: bool = False
    """Whether `start`, `whole` and `finish` find C["chance"], a uniform number [] in [0, 1) decided by (seed, round,
    client)."""

    at: Callable[[Phase], Algorithm | None] | None = None
    """phase -> the algorithm of this round, for methods that consist of phases; None: the method has ended, and the
    round passes without anybody doing anything. Phases are best counted in turns: in a round nobody may come. Taken
    from it are select, downlink, batches, virtual, chance, start, grad, step, finish, reduce, serve, lr, statistics and
    whole; of the first round's init_server and init_client as well. Where nothing has changed it is best the same
    object: executors keep what they have prepared."""

    statistics: bool = False
    """Whether the round is one pass over each client's examples, for sums instead of steps: all of them and as they
    are, whatever the budget's epochs, the schedule's `local_work` and the random views of images."""

    whole: Callable[[State, State], bool] = _never
    """(D, C) -> whether this client's work of the round is for a quantity of all its examples, such as the gradient of
    f_i: then `local_work` does not cut it short. Asked where it is not a round of statistics."""

    tags: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if unknown := self.tags - TAGS.keys():
            raise ValueError(f"unknown tags {sorted(unknown)}; allowed: {sorted(TAGS)}")
        if unknown := set(self.reduce.values()) - set(REDUCERS):
            raise ValueError(f"unknown reducers {sorted(unknown)}; allowed: {REDUCERS}")
        if self.batches and self.virtual:
            raise ValueError(
                "batches and virtual: batches are chosen from a client's own examples, virtual replaces them"
            )
        if bool(self.select) != ("selective" in self.tags):
            raise ValueError("a method with `select` has the tag selective, and no other has")


@dataclass(frozen=True)
class Neutral:
    """A setting in which a method is FedAvg: `hyperparameters` of the method, `fedavg` of FedAvg.

    `tolerance` 0 asks for the same bits; another value says how far rounding may take the two apart.
    """

    hyperparameters: Mapping[str, Any]
    fedavg: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 0.0
