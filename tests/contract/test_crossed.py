"""Features crossed, over every method: rounds without anybody, unequal local work, streams, and phases of a method.

What is right is known from elsewhere: the same run without the rounds in which nobody comes, the loop executor, the
run that was never stopped, the weights on the methods' cards, and who holds examples of a stage.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from contract import nets
from contract.arms import CASES, Case
from contract.quadratic import build, run, setting
from contract.spies import attending, rounds
from contract.test_executors import assert_same
from heterobench import keyed
from heterobench.availability import Attendance
from heterobench.config.schema import Availability, LocalWork, ScheduleFile
from heterobench.engine import checkpoint
from heterobench.engine.synchronous import Setting, advance, begin
from heterobench.errors import RunError
from heterobench.executor.loop import Loop
from heterobench.executor.vmap import Vmap
from heterobench.executor.workers import Workers
from heterobench.federation import Federation

F64 = torch.float64
ARMS = [
    *CASES,
    Case("fedamd, period of 2", "fedamd", {"p": 2}),
    Case("ggeur, prototypes", "ggeur", {"prototype_draws": 4}),
    Case("curriculum-fl, few examples, last models", "curriculum-fl", {"scoring": "both", "minimum": 1}),
    Case("curriculum-fl, hard clients first", "curriculum-fl", {"client_order": "anti", "client_b": 1.0}),
    Case("fedlgd, often", "fedlgd", {"refresh_every": 1, "distil_every": 2}),
]
AVAILABLE = [case for case in ARMS if not {"pooled", "selective"} & case.build()[0].tags]
every = pytest.mark.parametrize("case", ARMS, ids=str)
available = pytest.mark.parametrize("case", AVAILABLE, ids=str)

SIZES = (10, 5, 13, 8, 7)
# who is there, client by client, in eight rounds, of which a stream spends four in each of its two stages
THERE = np.array([
    [0, 0, 0, 0, 0],  # nobody, before anybody has come
    [1, 1, 1, 0, 0],
    [0, 0, 0, 1, 0],  # in a stream nobody: client 3 has nothing in the first stage
    [1, 0, 0, 0, 1],
    [1, 0, 0, 1, 1],
    [0, 0, 0, 0, 0],
    [0, 1, 1, 1, 0],  # in a stream without client 1, who has nothing in the second stage
    [0, 1, 0, 0, 0],  # in a stream nobody, in the very last round
], bool)  # fmt: skip
SHARE = LocalWork(min=0.1, max=0.9)


def streamed() -> Federation:
    """Client 1 has examples of the first stage only, client 3 of the second only, the others of both."""
    federation = nets.federation(SIZES, dtype=F64)
    stage = np.arange(sum(SIZES)) % 2
    first = np.cumsum((0, *SIZES))
    stage[first[1] : first[2]], stage[first[3] : first[4]] = 0, 1
    return replace(federation, stage=stage)


def crossed(case: Case, there=THERE, work: LocalWork | None = SHARE, stream: bool = True, **more) -> Setting:
    """All features at once. Where clients cannot come by themselves, the server asks for half of them in a round."""
    algorithm, _ = case.build(**{"lr": 0.05} | more)
    federation = streamed() if stream else nets.federation(SIZES, dtype=F64)
    comes = not {"pooled", "selective"} & algorithm.tags
    schedule = ScheduleFile(title="", participation=1.0 if comes else 0.5, local_work=work)
    given = {"rounds": len(there), "epochs": 2, "batch_size": 3, "schedule": schedule}
    s = setting(algorithm, federation, nets.task(F64), **given)
    return attending(s, there) if comes else s


def with_executor(s: Setting, executor) -> Setting:
    other = replace(s, executor=executor)
    return attending(other, THERE) if s.attendance else other


def tensors(state) -> list[Tensor]:
    return [*state.server.values(), *(value for own in state.clients.values() for value in own.values())]


def assert_equal(found, expected) -> None:
    """Two states of a run have the same bits, and have cost the same."""
    assert_same(found, expected, 0)


# everything at once -------------------------------------------------------------------------------------------------


@every
def test_executors_agree_and_nothing_breaks(case):
    """Workers to the bit, stacked clients to rounding; every number of every state is finite."""
    s = crossed(case)
    expected = run(s)
    assert all(torch.isfinite(value).all() for value in tensors(expected))
    for executor, tolerance in ((Workers(2), 0), (Vmap(), 1e-10)):
        with closing(executor):
            assert_same(run(with_executor(s, executor)), expected, tolerance)


@every
def test_a_run_that_was_killed_after_any_round_goes_on_with_the_same_bits(case, tmp_path):
    """Each round begins from a checkpoint, in a setting that has never seen an earlier round."""
    states = [begin(crossed(case)), *rounds(crossed(case), len(THERE))]
    for before, after in pairwise(states):
        checkpoint.save(tmp_path, before, {}, {})
        stored, *_ = checkpoint.load(tmp_path)
        assert stored.round == before.round
        found = advance(crossed(case), stored)
        assert all(torch.equal(value, after.server[name]) for name, value in found.server.items())
        for i, own in after.clients.items():
            assert all(torch.equal(value, found.clients[i][name]) for name, value in own.items())


class Watching(Loop):
    """The loop, which remembers who was asked in each round, and for how many steps."""

    def __init__(self):
        self.asked = {}

    def run(self, local, down, cohort):
        self.asked[cohort[0].round] = [work.client for work in cohort]
        return super().run(local, down, cohort)


@pytest.mark.parametrize("case", [c for c in ARMS if "pooled" not in c.build()[0].tags], ids=str)
def test_clients_that_have_nothing_in_a_stage_are_never_asked(case):
    watching, federation = Watching(), streamed()
    run(with_executor(crossed(case), watching))
    assert watching.asked
    for round, asked in watching.asked.items():
        held = [np.any(federation.stage[np.asarray(rows)] == (round >= 4)) for rows in federation.train]
        assert asked
        assert all(held[i] for i in asked)
        if case in AVAILABLE:
            assert asked == np.flatnonzero(THERE[round] & held).tolist()


# rounds without anybody ---------------------------------------------------------------------------------------------

KEYED_BY_ROUND = {"batches", "chance", "curriculum", "local work", "virtual features", "calibration"}


@available
def test_rounds_without_anybody_are_as_if_they_were_not(case, monkeypatch):
    """First, last and in between: the same states one after the other, given the same draws.

    Draws are keyed by the round of the budget; the run without gaps is given those of the rounds of the other.
    """
    come = np.flatnonzero(THERE.any(1))
    assert come[0] > 0
    assert (np.diff(come) > 1).any()
    padded = np.vstack([THERE, [[False] * len(SIZES)]])
    gaps = crossed(case, padded, stream=False)
    found = [state for state in rounds(gaps, len(padded)) if state.round - 1 in come]

    real = keyed.sequence

    def shifted(seed, purpose, *key):
        return real(seed, purpose, *((come[key[0]], *key[1:]) if purpose in KEYED_BY_ROUND else key))

    monkeypatch.setattr(keyed, "sequence", shifted)
    straight = list(rounds(crossed(case, THERE[come], stream=False), len(come)))
    monkeypatch.undo()
    same = [
        all(torch.equal(*pair) for pair in zip(tensors(one), tensors(other), strict=True))
        and (one.bytes_up, one.gradient_examples) == (other.bytes_up, other.gradient_examples)
        for one, other in zip(found, straight, strict=True)
    ]
    reason = getattr(case.module, "EXCEPTIONS", {}).get("empty_rounds")
    assert all(same) if reason is None else not all(same), reason


PATTERNS = {
    "bernoulli": Availability(pattern="bernoulli", mean=0.15),
    "markov": Availability(pattern="markov", mean=0.15, transition=0.2),
    "cyclic": Availability(pattern="cyclic", mean=0.15, period=9),
}


@pytest.mark.parametrize("rule", PATTERNS.values(), ids=PATTERNS)
def test_turns_count_the_rounds_in_which_anybody_took_part(rule):
    """What phases and the server are told, in a stream: who is there may have no examples, and yet belongs to all."""
    base, told, served = build("fedavg", lr=0.05)[0], {}, {}

    def serve(server, up, info):
        served[info.round] = info.turn, info.population
        return base.serve(server, up, info)

    listening = replace(base, serve=serve)

    def at(phase):
        told[phase.round] = (phase.turn, phase.turns)
        return listening

    schedule = ScheduleFile(title="", availability=rule)
    phased = replace(base, at=at, tags=base.tags | {"length"})  # who is told how many there are
    run(setting(phased, streamed(), nets.task(F64), rounds=20, epochs=1, schedule=schedule))
    attendance = Attendance(rule, 0, np.full(len(SIZES), rule.mean))
    there = np.stack([attendance(round) for round in range(20)])
    come = (there & np.repeat(held_by_stage()[[0, -1]], 10, axis=0)).any(1)
    assert 0 < come.sum() < there.any(1).sum()
    before = [int(come[:round].sum()) for round in range(20)]
    assert [told[round] for round in range(20)] == [(count, come.sum()) for count in before]
    assert served == {round: (before[round], len(SIZES)) for round in np.flatnonzero(come)}


# whole passes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "turn"), [("afl-analytic", 0), ("ggeur", 0), ("ccvr", -1), ("fedamd", 0), ("fedamd, period of 2", 2)]
)
def test_passes_over_all_examples_are_not_cut_short(name, turn):
    """Statistics and the gradients of anchors: the same bits, whatever share of their work clients do."""
    (case,) = (case for case in ARMS if case.name == name)
    least = LocalWork(min=0.01, max=0.01)
    come = [int(round) for round in np.flatnonzero((THERE & held_by_stage()).any(1))]
    states = [begin(crossed(case)), *rounds(crossed(case), len(THERE))]
    before = states[come[turn]]
    cut, whole = (advance(crossed(case, work=work), before) for work in (least, None))
    assert_equal(cut, whole)
    assert whole.bytes_up > before.bytes_up


def held_by_stage() -> np.ndarray:
    """bool [rounds, clients]: who has examples in the stage of a round."""
    federation = streamed()
    stages = [[np.any(federation.stage[np.asarray(rows)] == s) for rows in federation.train] for s in (0, 1)]
    return np.repeat(np.array(stages), len(THERE) // 2, axis=0)


# weights ------------------------------------------------------------------------------------------------------------

BY_EXAMPLES = {"fedavg", "fedprox", "fednova", "fedopt", "moon", "fedlex", "curriculum-fl", "ccvr"}
UNIFORM = {
    "anarchic-fl", "diloco", "fedamd", "fedau", "fedavg-m", "feddyn", "fedld", "fedlgd", "fedspeed", "ggeur",
    "scaffold", "scaffold-m",
}  # fmt: skip
NOTHING_TO_WEIGH = {"afl-analytic", "centralised", "local-only"}


@pytest.mark.parametrize("case", [c for c in CASES if c.algorithm not in NOTHING_TO_WEIGH], ids=str)
def test_clients_weigh_what_the_card_says(case):
    """In the second of three rounds the model answers to a change of one client's message by that client's weight."""
    assert (case.algorithm in BY_EXAMPLES) != (case.algorithm in UNIFORM)
    more = {"fedld": {"aggregation": "mean", "weighting": "uniform"}, "fedamd": {"p": 2}}.get(case.algorithm, {})
    algorithm, _ = case.build(lr=0.05, **more)
    sizes = (15, 5)
    s = setting(algorithm, nets.federation(sizes, dtype=F64), nets.task(F64), rounds=3, epochs=1, batch_size=5)
    before = advance(s, begin(s))
    phase = s.local.at(1)
    (*_, last) = [name for name, value in messages(s, before)[0].items() if value.shape == before.server["theta"].shape]
    entry = {"scaffold": "dy", "scaffold-m": "g"}.get(case.algorithm, last)

    def answer(client: int) -> Tensor:
        """How the model moves when a client adds to its message."""

        class Adding(Loop):
            def run(self, local, down, cohort):
                results = super().run(local, down, cohort)
                one = results[client]
                results[client] = one._replace(uplink=one.uplink | {entry: one.uplink[entry] + 1e-7})
                return results

        changed = advance(replace(s, executor=Adding()), before)
        return s.algorithm.model(changed.server) - s.algorithm.model(advance(s, before).server)

    assert phase is not None
    one, other = answer(0), answer(1)
    ratio = 3.0 if case.algorithm in BY_EXAMPLES else 1.0
    assert one.abs().max() > 1e-10
    torch.testing.assert_close(one, ratio * other, rtol=1e-3, atol=1e-13)


def messages(s: Setting, state) -> list[dict[str, Tensor]]:
    """The uplinks of a round."""
    found = []

    class Listening(Loop):
        def run(self, local, down, cohort):
            results = super().run(local, down, cohort)
            found.extend(result.uplink for result in results)
            return results

    advance(replace(s, executor=Listening()), state)
    return found


# choosing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [[], [0, 0], [1], [7]], ids=["nobody", "one twice", "of another stage", "unknown"])
def test_a_server_that_chooses_somebody_who_cannot_train_is_told_so(wrong):
    """In the second stage of a stream, for which client 1 has nothing."""
    (case,) = (case for case in ARMS if case.name == "curriculum-fl-clients")
    s = crossed(case)
    *_, state = rounds(s, 5)
    broken = replace(s.algorithm, select=lambda server, given: (server, np.array(wrong, np.int64)))
    with pytest.raises(RunError, match=r"round 6: the method chooses the clients .*; allowed: different clients"):
        advance(replace(s, algorithm=broken), state)


# drawn crossings ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", range(8))
@every
def test_drawn_crossings(case, number, tmp_path):
    """Schedules, streams and sizes as they are drawn: finite, the same on all executors, and after three kills."""
    draw = np.random.default_rng(number)
    algorithm, _ = case.build(lr=0.05)
    federation = streamed() if draw.random() < 0.5 else nets.federation(SIZES, dtype=F64)
    low = draw.uniform(0.05, 0.6)
    work = {"local_work": LocalWork(min=low)} if draw.random() < 0.6 else {"stragglers": 0.5}
    rule = PATTERNS[draw.choice(list(PATTERNS))].model_copy(update={"mean": draw.uniform(0.1, 0.6)})
    comes = "selective" not in algorithm.tags
    who = {"availability": rule} if comes else {"participation": draw.uniform(0.1, 1.0)}
    given = {
        "rounds": int(draw.integers(3, 14)),
        "epochs": int(draw.integers(1, 4)),
        "batch_size": int(draw.integers(1, 7)),
        "seed": number,
        "schedule": ScheduleFile(title="", **who, **work),
    }

    def fresh(executor=None):
        s = setting(algorithm, federation, nets.task(F64), **given)
        return replace(s, executor=executor) if executor else s

    if fresh().turns and not fresh().turns[-1]:
        with pytest.raises(RunError, match="nobody comes"):
            begin(fresh())
        return
    states = [begin(fresh()), *rounds(fresh(), given["rounds"])]
    assert all(torch.isfinite(value).all() for value in tensors(states[-1]))
    for executor, tolerance in ((Workers(2), 0), (Vmap(), 1e-8)):
        with closing(executor):
            assert_same(run(fresh(executor)), states[-1], tolerance)
    for round in draw.choice(given["rounds"], 3):
        checkpoint.save(tmp_path / str(round), states[round], {}, {})
        assert_equal(run(fresh(), checkpoint.load(tmp_path / str(round))[0]), states[-1])
