"""Card curriculum-fl (Vahidian et al. 2023): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

import itertools
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contract import nets
from contract.quadratic import Quadratics, QuadraticTask, build, run, setting
from contract.spies import exact_net, noisy, rounds
from contract.test_executors import EXECUTORS, PARTIAL, assert_same
from heterobench.algorithms._pacing import GROWTH, ordered, pace
from heterobench.config.schema import ScheduleFile
from heterobench.engine.synchronous import advance, begin
from heterobench.errors import RunError
from heterobench.executor.local import Local, Work, batches_of
from heterobench.executor.loop import Loop
from heterobench.federation import batches

F64 = torch.float64
FAMILIES = list(GROWTH)
ORDERS = ["curriculum", "anti", "random"]
family = pytest.mark.parametrize("pacing", FAMILIES)


def hyperparameters(**settings):
    return build("curriculum-fl", **settings)[1]


def plan(federation, task, theta, *, client=0, round=0, epochs=4, size=5, state=None, seed=0, **settings):
    """The batches of a client, as places among its own examples, and the losses [N] of these under theta."""
    algorithm, _ = build("curriculum-fl", **{"minimum": 1} | settings)
    rows = np.asarray(federation.train[client])
    state = algorithm.init_client(theta) if state is None else state
    found = batches_of(
        Local(algorithm, task, federation, size, seed), Work(client, round, epochs, 0.1, state), {"theta": theta}
    )
    place = {int(row): number for number, row in enumerate(rows)}
    losses = task.scores(theta, [federation.pool.batch(rows)])["loss"].numpy()
    return [np.array([place[int(row)] for row in batch]) for batch in found], losses


def passes(found: list[np.ndarray], hp, count: int, size: int, epochs: int) -> list[np.ndarray]:
    """The batches of each whole pass over the visible examples, joined, by the numbers that pace gives."""
    steps, joined = -(-count // size) * epochs, []
    while found:
        visible = max(pace(hp, steps - len(found), steps, count), min(hp.minimum, count))
        taken = -(-visible // size)
        if taken > len(found):
            break  # the steps ended within this pass
        joined.append(np.concatenate(found[:taken]))
        found = found[taken:]
    return joined


# invariants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("settings", [{"pacing": name} for name in FAMILIES], ids=str)
def test_invariant_1_all_examples_from_the_beginning_is_fedavg(order, settings):
    """curriculum-fl 1: b = 1, with every family and in every order, to the bit."""
    task, federation = nets.task(), nets.federation()
    ours, plain = (
        run(setting(build(name, lr=0.1, **more)[0], federation, task, rounds=2, epochs=3, batch_size=4))
        for name, more in (("curriculum-fl", {"b": 1, "order": order, "minimum": 1} | settings), ("fedavg", {}))
    )
    assert torch.equal(ours.server["theta"], plain.server["theta"])
    assert ours.gradient_examples == plain.gradient_examples


@family
@pytest.mark.parametrize(("a", "b"), [(0.8, 0.2), (0.1, 0.0025), (1.0, 0.5), (0.5, 1.0)])
def test_invariant_2_pace_never_falls_and_reaches_everything_in_time(pacing, a, b):
    """curriculum-fl 2: pace(0) = max(1, int(b N)), pace(a T) = N."""
    hp, steps, count = hyperparameters(pacing=pacing, a=a, b=b), 240, 137
    found = [pace(hp, s, steps, count) for s in range(steps + 1)]
    assert abs(found[0] - max(1, int(b * count))) <= (pacing == "logarithmic")  # its start is rounded
    assert found == sorted(found)
    assert set(found[int(np.ceil(a * steps)) :]) == {count}
    assert b == 1 or found[int(a * steps) - 1] < count or pacing == "logarithmic"


@pytest.mark.parametrize(
    ("pacing", "expected"),
    [("linear", 60), ("quadratic", 40), ("root", 76), ("step", 20), ("exponential", 20), ("logarithmic", 94)],
)
def test_invariant_2_values_in_the_middle(pacing, expected):
    """curriculum-fl 2: N = 100, b = 0.2, u = 1/2: 20 + 80 (1/2, 1/4, 0.7071, 0, 0.0067, 0.9307), cut off."""
    assert pace(hyperparameters(pacing=pacing, a=0.5, b=0.2), 25, 100, 100) == expected


@pytest.mark.parametrize("order", ["curriculum", "anti"])
def test_invariant_3_what_is_visible_is_easier_than_what_is_not(order):
    """curriculum-fl 3: in every pass, by the losses under the received model; anti: harder."""
    federation, task = noisy([41, 33]), QuadraticTask()
    for client, count in ((0, 41), (1, 33)):
        found, losses = plan(federation, task, task.init(3), client=client, order=order)
        hp, hidden = hyperparameters(order=order, minimum=1), 0
        for seen in passes(found, hp, count, 5, 4):
            inside, outside = losses[seen], np.delete(losses, seen)
            if not len(outside):
                break
            hidden += 1
            assert (inside.max() <= outside.min()) if order == "curriculum" else (inside.min() >= outside.max())
        assert hidden > 1


def test_invariant_3_anti_is_the_reversed_list():
    """curriculum-fl 3."""
    losses = np.random.default_rng(0).normal(size=20)
    easy, hard = (ordered(hyperparameters(order=order), losses) for order in ("curriculum", "anti"))
    assert easy.tolist() == hard[::-1].tolist() == np.argsort(losses).tolist()


@pytest.mark.parametrize(("count", "size"), [(41, 5), (40, 5), (3, 5), (1, 1)])
def test_invariant_4_steps_are_those_of_the_other_methods_in_every_order(count, size):
    """curriculum-fl 4: ceil(N/B) E (the code: one more an epoch where B divides N); no example twice in a pass."""
    federation, task = noisy([count]), QuadraticTask()
    expected = len(batches(0, 0, 0, np.arange(count), 4, size))
    sizes = []
    for order in ORDERS:
        found, _ = plan(federation, task, task.init(0), size=size, order=order)
        assert len(found) == expected
        sizes.append([len(batch) for batch in found])
        for seen in passes(found, hyperparameters(minimum=1), count, size, 4):
            assert len(seen) == len(set(seen))
    assert sizes[0] == sizes[1] == sizes[2]  # the same gradients of examples, too


def test_invariant_5_equal_losses_keep_the_examples_order():
    """curriculum-fl 5: the sort is stable, so what is visible are the first examples, of whatever loss."""
    two_values = ordered(hyperparameters(), np.arange(300) % 2 / 3)
    assert two_values.tolist() == [*range(0, 300, 2), *range(1, 300, 2)]
    problem = Quadratics.draw(clients=1)
    federation = replace(problem, n=np.array([20])).federation()
    task = QuadraticTask()
    found, losses = plan(federation, task, task.init(0))
    assert np.ptp(losses) == 0
    assert set(found[0]) < set(range(5))  # b N = 4


def test_invariant_6_the_first_round_scores_the_initial_model():
    """curriculum-fl 6: and a later one the model of that round; both by the engine."""
    task, federation = exact_net()
    asked = []

    class Asked:
        def __getattr__(self, name):
            return getattr(task, name)

        def scores(self, theta, chunks):
            asked.append(theta.clone())
            return task.scores(theta, chunks)

    s = setting(build("curriculum-fl", lr=0.5, minimum=1)[0], federation, Asked(), epochs=2, batch_size=2)
    x = begin(s).server["theta"]
    for state in rounds(s, 3):
        assert len(asked) == len(federation)
        assert all(torch.equal(theta, x) for theta in asked)
        asked.clear()
        x = state.server["theta"]


# update rule and traps ----------------------------------------------------------------------------------------------


def test_trap_what_is_visible_changes_after_a_whole_pass_only():
    """40 examples, batches of 5, 40 steps of which 32 grow: passes of 8, 8+, ... until all are seen."""
    federation, task = noisy([40]), QuadraticTask()
    found, _ = plan(federation, task, task.init(0), epochs=5)
    hp, index, lengths = hyperparameters(minimum=1), 0, []
    while index < len(found):
        visible = pace(hp, index, 40, 40)
        batch = [min(5, visible - first) for first in range(0, visible, 5)]
        lengths += batch
        index += len(batch)
    assert [len(batch) for batch in found] == lengths[:40]
    assert lengths[:2] == [5, 3]


def test_trap_tiny_clients_see_everything():
    """32 examples are always visible: a client that has no more trains as in FedAvg, one that has more does not."""
    federation, task = noisy([32, 33]), QuadraticTask()
    for client, same in ((0, True), (1, False)):
        found, _ = plan(federation, task, task.init(0), client=client, minimum=32, b=0.01)
        plain = batches(0, 0, client, np.arange(32 + client), 4, 5)
        assert all(np.array_equal(*pair) for pair in zip(found, plain, strict=True)) == same
        assert len(set(np.concatenate(found[:7]))) == 32


def test_random_order_is_decided_by_seed_round_and_client():
    federation, task = noisy([30]), QuadraticTask()

    def first(**more):
        return np.concatenate(plan(federation, task, task.init(0), order="random", **more)[0][:2]).tolist()

    assert first() == first()
    assert len({tuple(sorted(first(round=round, seed=seed))) for round in range(2) for seed in range(2)}) == 4


def test_the_local_model_scores_from_the_second_participation_on():
    """scoring: local is the model that the client ended with, both is the sum; the first time the received one."""
    federation, task = noisy([40]), QuadraticTask()
    received, last = task.init(0), task.init(1)
    whole = [federation.pool.batch(np.asarray(federation.train[0]))]
    here, there = (task.scores(theta, whole)["loss"].numpy() for theta in (received, last))
    assert not np.array_equal(np.argsort(here)[:8], np.argsort(there)[:8])
    for known, scoring, losses in (
        (0.0, "local", here),
        (1.0, "local", there),
        (1.0, "both", here + there),
        (0.0, "both", here),
    ):
        state = {"last": last, "known": torch.tensor(known)}
        found, _ = plan(federation, task, received, state=state, scoring=scoring)
        assert set(np.concatenate(found[:2])) == set(np.argsort(losses)[:8])


def test_the_local_model_is_what_a_client_ended_with():
    task, federation = QuadraticTask(), noisy([9, 12])
    s = setting(build("curriculum-fl", lr=0.1, scoring="local", minimum=1)[0], federation, task, batch_size=3)
    before, after = begin(s), next(rounds(s, 1))
    mean = (9 * after.client(0)["last"] + 12 * after.client(1)["last"]) / 21
    torch.testing.assert_close(mean, after.server["theta"], atol=1e-14, rtol=0)
    assert before.client(0)["known"] == 0
    assert after.client(0)["known"] == 1


@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
@pytest.mark.parametrize("settings", [{}, {"order": "anti", "scoring": "both"}, {"order": "random"}], ids=str)
def test_every_executor_takes_the_chosen_batches(settings, executor):
    """With so few visible examples that it matters which: the contract's clients see everything by default."""
    task, federation = exact_net()
    algorithm, _ = build("curriculum-fl", lr=0.3, momentum=0.5, minimum=1, **settings)
    s = setting(algorithm, federation, task, rounds=3, epochs=3, batch_size=2, schedule=PARTIAL)
    expected = run(s)
    with closing(executor()) as e:
        assert_same(run(replace(s, executor=e)), expected, 1e-10)
    plain = run(replace(s, algorithm=build("fedavg", lr=0.3, momentum=0.5)[0]))
    assert (plain.server["theta"] - expected.server["theta"]).abs().max() > 1e-3


def test_the_model_is_not_changed_by_scoring():
    """The downlink that clients train from is the one that was scored."""
    task, federation = exact_net()
    algorithm, _ = build("curriculum-fl", minimum=1)
    local, down = Local(algorithm, task, federation, 2, 0), {"theta": task.init(0)}
    before = down["theta"].clone()
    batches_of(local, Work(0, 0, 3, 0.1, {}), down)
    assert torch.equal(down["theta"], before)


def test_messages_are_those_of_fedavg():
    """8 P bytes; scoring asks for no gradient."""
    task, federation = nets.task(), nets.federation()
    ours, plain = (
        run(setting(build(name, **more)[0], federation, task, epochs=2, batch_size=3))
        for name, more in (("curriculum-fl", {"minimum": 1, "scoring": "both"}), ("fedavg", {}))
    )
    assert (ours.bytes_up, ours.bytes_down) == (plain.bytes_up, plain.bytes_down)
    assert ours.gradient_examples <= plain.gradient_examples


@pytest.mark.parametrize(
    "settings",
    [{"order": "clients"}, {"scoring": "expert"}, {"pacing": "cosine"}, {"a": 0}, {"b": 1.1}, {"minimum": 0}],
    ids=str,
)
def test_what_is_not_offered_is_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        build("curriculum-fl", **settings)


# the order of clients -----------------------------------------------------------------------------------------------


def ordering(order="curriculum", *, clients=10, participation=0.2, rounds=20, **settings):
    """A run on quadratics whose clients differ in their losses."""
    settings = {"lr": 0.05, "client_order": order, "client_a": 1.0, "client_b": 0.4} | settings
    schedule = ScheduleFile(title="", participation=participation)
    fed = Quadratics.draw(clients).federation()
    return setting(build("curriculum-fl", **settings)[0], fed, rounds=rounds, epochs=1, schedule=schedule)


class Listening(Loop):
    """A loop that remembers the clients of its last cohort."""

    def run(self, local, down, cohort):
        self.cohort = [work.client for work in cohort]
        return super().run(local, down, cohort)


def visits(s, count):
    """For each round: its cohort, the pool before it and after it, and the clients from easy to hard under x."""
    states, found = [begin(s), *rounds(s, count)], []
    for before, after in itertools.pairwise(states):
        loop = Listening()
        advance(replace(s, executor=loop), before)
        losses = [
            float(s.task.scores(before.server["theta"], [s.federation.pool.batch(rows)])["loss"].mean())
            for rows in s.federation.train
        ]
        pools = [state.server["pool"].tolist() for state in (before, after)]
        found.append((loop.cohort, *pools, np.argsort(losses, kind="stable").tolist()))
    return found


@pytest.mark.parametrize("order", ["curriculum", "anti"])
def test_pools_are_the_first_clients_of_the_order_and_grow(order):
    """Card: of 10 clients, 2 a round, 40 updates in all, from 4 on linearly; each pool is gone through once."""
    expected, updates, pool = [], 0, []
    for cohort, before, after, easy in visits(ordering(order), 20):
        if not before:
            visible = int(4 + 6 * updates / 40)
            pool = (easy if order == "curriculum" else easy[::-1])[:visible]
            expected.append(visible)
            before = pool
        assert len(cohort) == min(2, len(before))
        assert cohort == sorted(cohort)
        assert sorted(cohort + after) == sorted(before)
        updates += len(cohort)
    assert expected == sorted(expected)
    assert expected[0] == 4
    assert len(set(expected)) > 2


def test_a_random_order_of_clients_asks_nobody_and_visits_everybody_of_the_pool():
    s = ordering("random", client_b=1.0)
    cohorts = [cohort for cohort, *_ in visits(s, 5)]
    assert sorted(itertools.chain(*cohorts)) == list(range(10))
    plain = ordering("none")
    for one, two in zip(rounds(s, 5), rounds(plain, 5), strict=True):
        assert (one.bytes_up, one.bytes_down) == (two.bytes_up, two.bytes_down)
    assert cohorts != [cohort for cohort, *_ in visits(replace(s, seed=1), 5)]


def test_asking_for_losses_costs_a_model_to_everybody_and_a_number_back():
    s, model = ordering(), 8 * 5
    one, two, three = rounds(s, 3)  # a pool of four is two rounds
    assert one.bytes_down == 10 * model + 2 * model
    assert one.bytes_up == 10 * 8 + 2 * (model + 8)
    assert two.bytes_down - one.bytes_down == 2 * model
    assert two.bytes_up - one.bytes_up == 2 * (model + 8)
    assert three.bytes_down - two.bytes_down == 12 * model


def test_a_run_goes_on_within_a_pool():
    """From the state in the middle of one, to the bit."""
    s = ordering()
    states = list(rounds(s, 6))
    assert len(states[2].server["pool"])
    for one, two in zip(rounds(s, 3, states[2]), states[3:], strict=True):
        assert torch.equal(one.server["theta"], two.server["theta"])


def in_stages(held, rounds, participation, **settings):
    """A run through two stages: client i of the parabolas has examples of the stages held[i]."""
    s = ordering(clients=len(held), participation=participation, rounds=rounds, **settings)
    own = [np.asarray(rows)[: len(stages)] for rows, stages in zip(s.federation.train, held, strict=True)]
    stage = np.zeros(len(s.federation.pool), np.int64)
    for rows, stages in zip(own, held, strict=True):
        stage[rows] = stages
    return replace(s, federation=replace(s.federation, train=own, stage=stage))


@pytest.mark.parametrize("seed", range(4))
def test_who_has_nothing_in_the_next_stage_leaves_the_pool(seed):
    """Three clients of one stage and three of the other, one a round: a pool of three is left after two rounds."""
    s = in_stages([[0], [0], [0], [1], [1], [1]], 4, 0.34, client_b=1.0)
    loop = Listening()
    s, asked = replace(s, executor=loop, seed=seed), []
    for state in rounds(s, 4):
        asked.append(loop.cohort)
        assert torch.isfinite(state.server["theta"]).all()
    assert all(len(cohort) == 1 for cohort in asked)
    first, second = (list(itertools.chain(*part)) for part in (asked[:2], asked[2:]))
    assert len(set(first) & {0, 1, 2}) == 2
    assert len(set(second) & {3, 4, 5}) == 2


@pytest.mark.parametrize("seed", range(4))
def test_who_has_examples_in_the_next_stage_stays_in_the_pool(seed):
    """Four clients of both stages, one a round: the stage changes after three, and who is left is visited next."""
    s = in_stages([[0, 1]] * 4, 6, 0.25, client_b=1.0)
    loop = Listening()
    s, asked = replace(s, executor=loop, seed=seed), []
    for _ in rounds(s, 6):
        asked += loop.cohort
    assert sorted(asked[:4]) == [0, 1, 2, 3]


def test_clients_that_come_by_themselves_cannot_be_chosen():
    schedule = ScheduleFile.model_validate({"title": "", "availability": {"pattern": "bernoulli", "mean": 0.5}})
    with pytest.raises(RunError, match=r"availability.*participation"):
        setting(build("curriculum-fl", client_order="anti")[0], Quadratics.draw(4).federation(), schedule=schedule)
