"""Synchronous rounds: the server sends, a cohort trains, the server reduces.

`begin` gives the state before the first round and `advance` takes it through one round; a run is nothing but
`advance` applied again and again, so a run that goes on from a stored state ends with the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from heterobench import keyed
from heterobench import schedule as schedules
from heterobench.algorithm import Algorithm, Candidates, Info, State
from heterobench.availability import Attendance, rates
from heterobench.channel import COUNT_BYTES, size
from heterobench.combine import combine
from heterobench.config.schema import Budget, Clock, ScheduleFile
from heterobench.engine.client_states import ClientStates
from heterobench.errors import RunError
from heterobench.executor.local import Executor, Local, Result, Work
from heterobench.executor.loop import Loop
from heterobench.federation import Federation
from heterobench.task import Task


@dataclass(frozen=True)
class Setting:
    """All that a run is made of."""

    federation: Federation
    task: Task
    algorithm: Algorithm
    schedule: ScheduleFile
    budget: Budget
    seed: int
    executor: Executor = field(default_factory=Loop)

    def __post_init__(self) -> None:
        if "pooled" in self.algorithm.tags:
            object.__setattr__(self, "federation", self.federation.pooled())
            # one place that has all the data is always there and does all its work
            always = self.schedule.model_copy(update={"availability": None, "local_work": None})
            object.__setattr__(self, "schedule", always)
        if self.algorithm.select and self.schedule.availability:
            raise RunError(
                "schedule: availability: clients come by themselves there, but the method chooses whom to ask; "
                "allowed with it: participation"
            )
        stages = self.federation.stages
        if len(stages) > 1 and self.budget.rounds < len(stages):
            raise RunError(
                f"budget: rounds: {self.budget.rounds} rounds cannot be divided into the {len(stages)} stages of the "
                f"partition's stream; at least {len(stages)} are needed"
            )
        for number, now in enumerate(stages):
            if not len(now.active):
                when = f" in stage {number} of {len(stages)}" if len(stages) > 1 else ""
                raise RunError(f"no client can train{when}: nobody has a labelled training example")

    @property
    def clock(self) -> Clock | None:
        """Of the simulated devices; None also where the data are brought together, for then there are none."""
        return None if "pooled" in self.algorithm.tags else self.schedule.clock

    @cached_property
    def attendance(self) -> Attendance | None:
        """Who is there in each round; None where the schedule has no such pattern."""
        if (rule := self.schedule.availability) is None:
            return None
        labels = self.federation.pool.y.cpu().numpy()
        return Attendance(rule, self.seed, rates(rule, self.seed, self.federation.train, labels))

    @cached_property
    def turns(self) -> tuple[int, ...] | None:
        """[rounds + 1]: in how many rounds before each one anybody takes part, at last in how many of all; None: in
        every one."""
        if self.attendance is None:
            return None
        there = [len(self.cohort(round)) > 0 for round in range(self.budget.rounds)]
        return (0, *np.cumsum(there).tolist())

    def cohort(self, round: int) -> np.ndarray:
        """Ids of those who take part, ascending, unless the algorithm selects others."""
        active = self.federation.at(round, self.budget.rounds).active
        return schedules.cohort(self.schedule, self.seed, round, active, self.attendance)

    @cached_property
    def flops(self) -> int | None:
        """Operations of the gradient of one example (`heterobench.flops`); None where the task cannot tell."""
        if (flops := getattr(self.task, "flops", None)) is None:
            return None
        return flops(self.federation.pool.batch(np.zeros(1, np.int64)).x)

    @cached_property
    def local(self) -> Local:
        lengths = (self.budget.rounds, self.turns)
        return Local(self.algorithm, self.task, self.federation, self.budget.batch_size, self.seed, *lengths)


@dataclass(frozen=True)
class RunState:
    """Everything that the next round depends on.

    `clients` holds the states of the clients that have taken part; the others still have `fresh`, the state that
    every client starts with. What was counted is the sum over all clients and rounds so far; `simulated_seconds` stay 0
    without a clock. `train_loss` is that of the last round, NaN where nobody took part in it.
    """

    round: int
    server: State
    fresh: State
    clients: ClientStates = field(default_factory=ClientStates)
    bytes_up: int = 0
    bytes_down: int = 0
    gradient_examples: int = 0
    simulated_seconds: float = 0.0
    train_loss: float = float("nan")

    def client(self, i: int) -> State:
        return self.clients.get(i, self.fresh)


def begin(setting: Setting, folder: Path | None = None) -> RunState:
    """The state before the first round. `folder` takes client states that are too large for memory."""
    if setting.turns and not setting.turns[-1]:
        raise RunError(
            f"schedule: availability: nobody comes in any of the {setting.budget.rounds} rounds (seed {setting.seed}); "
            "a higher mean or more rounds bring somebody"
        )
    theta, algorithm = setting.task.init(setting.seed), setting.local.at(0) or setting.algorithm
    return RunState(0, algorithm.init_server(theta), algorithm.init_client(theta), ClientStates(folder))


def advance(setting: Setting, state: RunState) -> RunState:
    """One round: cohort, downlink, local training, uplinks, server.

    Where nobody is there only time passes; where the method has ended not even that.
    """
    federation, seed, round = setting.federation, setting.seed, state.round
    if (algorithm := setting.local.at(round)) is None:
        return replace(state, round=round + 1)
    now = federation.at(round, setting.budget.rounds)
    cohort = setting.cohort(round)
    asked: list[schedules.Part] = []
    if algorithm.select:
        state, cohort, asked = _selected(setting, algorithm, state, now, len(cohort))
    if not len(cohort):
        idle = state.simulated_seconds + _seconds(setting, cohort, [])
        return replace(state, round=round + 1, simulated_seconds=idle, train_loss=float("nan"))
    down = algorithm.downlink(state.server)
    work = [_work(setting, algorithm, state, int(client)) for client in cohort]
    results = setting.executor.run(setting.local, down, work)

    examples = [len(now.train[int(client)]) for client in cohort]
    up = combine([result.uplink for result in results], examples, algorithm.reduce)
    # a client without examples in this stage is one that was not sampled: it still belongs to the population
    turn = setting.local.turn(round)
    info = Info(round, len(cohort), len(federation.active), setting.task.sizes, seed, setting.task, turn)
    server = algorithm.serve(state.server, up, info)
    parts = _parts(setting, down, results)
    kept = {w.client: result.state for w, result in zip(work, results, strict=True) if result.state}
    return replace(
        state,
        round=round + 1,
        server=server,
        clients=state.clients.put(kept),
        bytes_up=state.bytes_up + sum(part.up for part in parts + asked),
        bytes_down=state.bytes_down + sum(part.down for part in parts + asked),
        gradient_examples=state.gradient_examples + sum(part.examples for part in parts),
        simulated_seconds=state.simulated_seconds + _seconds(setting, cohort, parts),
        train_loss=float(np.average([result.loss for result in results], weights=examples)),
    )


def _selected(
    setting: Setting, algorithm: Algorithm, state: RunState, now: Federation, count: int
) -> tuple[RunState, np.ndarray, list[schedules.Part]]:
    """The state, the cohort that the algorithm chooses, ascending, and what asking the clients for it has cost."""
    asked: list[schedules.Part] = []

    def losses(theta: Tensor) -> np.ndarray:
        message = schedules.Part(0, size(algorithm.downlink(state.server)), COUNT_BYTES)
        asked.extend([message] * len(now.active))
        scored = (setting.task.scores(theta.clone(), now.pool.chunks(np.asarray(now.train[i]))) for i in now.active)
        return np.array([float(scores["loss"].double().mean()) for scores in scored])

    generator = keyed.generator(setting.seed, "selection", state.round)
    rounds = setting.budget.rounds if "length" in setting.algorithm.tags else None
    given = Candidates(state.round, rounds, now.active, count, losses, generator)
    server, chosen = algorithm.select(state.server, given)
    chosen = np.sort(chosen)
    if not len(chosen) or len(np.unique(chosen)) < len(chosen) or not np.isin(chosen, now.active).all():
        raise RunError(
            f"round {state.round + 1}: the method chooses the clients {chosen.tolist()}; "
            "allowed: different clients that have training examples in this round, at least one"
        )
    return replace(state, server=server), chosen, asked


def _work(setting: Setting, algorithm: Algorithm, state: RunState, client: int) -> Work:
    round, full = state.round, 1 if algorithm.statistics else setting.budget.local_epochs
    epochs = schedules.epochs(setting.schedule, setting.seed, round, client, full)
    share = schedules.share(setting.schedule, setting.seed, round, client)
    return Work(client, round, epochs, algorithm.lr(round), state.client(client), share)


def _parts(setting: Setting, down: State, results: list[Result]) -> list[schedules.Part]:
    """What each client of the cohort has done."""
    if "pooled" in setting.algorithm.tags:  # bringing all data together first is not federated communication
        return [schedules.Part(result.examples, 0, 0) for result in results]
    received = size(down)
    return [
        schedules.Part(result.examples, received, size(result.uplink) + COUNT_BYTES if result.uplink else 0)
        for result in results
    ]


def _seconds(setting: Setting, cohort: np.ndarray, parts: list[schedules.Part]) -> float:
    """How long the round takes on the simulated clock."""
    if not len(cohort) and "silent" in setting.algorithm.tags:  # there is no server that could wait
        return 0.0
    return schedules.seconds(setting.clock, setting.seed, cohort, parts) if setting.clock else 0.0


def costs(setting: Setting, state: RunState) -> dict[str, float]:
    """What the rounds so far have cost, as far as it does not depend on the machine.

    bytes_up, bytes_down; gradient_examples: gradients of single examples, over all clients; flops: these times the
    operations of one, where they are known, without forward passes alone (MOON's) and what a term of the loss adds;
    simulated_seconds, where there is a clock.
    """
    found: dict[str, float] = {
        "bytes_up": state.bytes_up,
        "bytes_down": state.bytes_down,
        "gradient_examples": state.gradient_examples,
    }
    if setting.flops is not None:
        found["flops"] = state.gradient_examples * setting.flops
    if setting.clock:
        found["simulated_seconds"] = state.simulated_seconds
    return found
