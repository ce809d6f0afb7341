"""Patterns of availability, rates that follow the labels, unequal local work, and rounds in which nobody is there."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from contract import nets
from contract.arms import CASES, PROJECT
from contract.quadratic import build, run, setting
from contract.test_executors import EXECUTORS, assert_same
from heterobench import availability, keyed, schedule
from heterobench.availability import Attendance, transitions
from heterobench.config.reading import load, names
from heterobench.config.schema import Availability, ByLabel, Clock, LocalWork, LogNormal, ScheduleFile
from heterobench.config.strict import build as validated
from heterobench.engine import checkpoint
from heterobench.engine.synchronous import advance, begin
from heterobench.errors import ConfigurationError, RunError
from heterobench.executor.local import Work, batches_of
from heterobench.executor.loop import Loop
from heterobench.federation import batches
from heterobench.records import record
from heterobench.records.recorder import Recorder
from heterobench.training import train

PATTERNS = {
    "bernoulli": {"pattern": "bernoulli"},
    "markov": {"pattern": "markov", "transition": 0.2},
    "cyclic": {"pattern": "cyclic", "period": 7},
}
each = pytest.mark.parametrize("pattern", PATTERNS)
SIZES = (9, 1, 12, 0, 7, 1, 16)


def rule(pattern="bernoulli", mean=0.3, **more) -> Availability:
    return Availability(mean=mean, **PATTERNS[pattern] | more)


def there(of: Availability, rounds_, rates, seed=0) -> np.ndarray:
    """bool [rounds, clients]."""
    attendance = Attendance(of, seed, np.asarray(rates, float))
    return np.stack([attendance(t) for t in range(rounds_)])


# patterns -----------------------------------------------------------------------------------------------------------


@each
def test_a_pattern_is_a_function_of_seed_round_and_client(pattern):
    """The same in whatever order rounds are asked for, by a new object too, and with more clients beside."""
    rates, of = np.linspace(0.1, 0.9, 12), rule(pattern)
    straight = there(of, 30, rates)
    attendance = Attendance(of, 0, rates)
    for t in [29, 3, 3, 17, 0, 28]:
        assert (attendance(t) == straight[t]).all()
        assert (Attendance(of, 0, rates)(t) == straight[t]).all()
    assert (there(of, 30, np.append(rates, [0.5, 0.5]))[:, :12] == straight).all()
    assert (there(of, 30, rates, seed=1) != straight).any()


@each
def test_what_was_asked_for_cannot_be_changed_by_the_asker(pattern):
    """Else a chain would go on from what somebody made of its state."""
    with pytest.raises(ValueError, match="read-only"):
        Attendance(rule(pattern), 0, np.full(6, 0.5))(3)[0] = True


@each
def test_a_rate_of_one_is_always_there(pattern):
    assert there(rule(pattern), 40, np.ones(5)).all()


@each
def test_clients_are_there_at_their_rates(pattern):
    """4000 copies of each rate in a single round: the law of one round, not that of a long time."""
    values = np.array([0.05, 0.3, 0.5, 0.9])
    if pattern == "cyclic":
        values = np.array([1, 2, 4, 6]) / 7  # rates that a cycle can have
    attendance = Attendance(rule(pattern), 3, np.repeat(values, 4000))
    for t in (0, 1, 9):
        found = attendance(t).reshape(4, 4000).mean(1)
        assert (np.abs(found - values) < 5 * np.sqrt(values * (1 - values) / 4000)).all()


def test_bernoulli_rounds_are_independent_of_each_other():
    found = there(rule("bernoulli"), 2, np.full(20000, 0.3))
    assert abs((found[0] & found[1]).mean() - 0.09) < 5 * np.sqrt(0.09 * 0.91 / 20000)


@pytest.mark.parametrize("come", [0.05, 0.3, 1.0])
def test_the_rate_is_the_stationary_law_of_the_markov_chain(come):
    rates = np.array([0.01, 0.05, 0.3, 0.5, 0.9, 1.0])
    to_come, to_go = transitions(rates, come)
    for p, a, b in zip(rates, to_come, to_go, strict=True):
        matrix = np.array([[1 - a, a], [b, 1 - b]])
        assert ((matrix >= 0) & (matrix <= 1)).all()
        np.testing.assert_allclose([1 - p, p] @ matrix, [1 - p, p], atol=1e-15)
        assert a == come or b == pytest.approx(1)


def test_worked_transitions():
    """p = 0.1: leaving would have probability 0.45; p = 0.02: it would have 2.45, so both are divided by that."""
    come, go = transitions(np.array([0.1, 0.02]), 0.05)
    np.testing.assert_allclose(come, [0.05, 0.05 / 2.45])
    np.testing.assert_allclose(go, [0.45, 1.0])


def test_markov_clients_change_with_the_probabilities_of_their_chain():
    n, p = 40000, 0.3
    come, go = (float(x[0]) for x in transitions(np.array([p]), 0.2))
    found = there(rule("markov"), 6, np.full(n, p))
    before, after = found[:-1], found[1:]
    for chance, from_, to in ((come, ~before, after), (go, before, ~after)):
        assert abs((from_ & to).sum() / from_.sum() - chance) < 5 * np.sqrt(chance * (1 - chance) / from_.sum())


def test_cyclic_clients_have_exact_counts_and_one_stretch():
    period, rates = 20, np.array([0.01, 0.1, 0.26, 0.5, 0.974, 0.99, 1.0])
    lengths = [1, 2, 5, 10, 19, 20, 20]  # round(p T), at least 1
    found = there(rule("cyclic", period=period), 3 * period, rates)
    for first in range(2 * period):  # every window of a period, not only the aligned ones
        assert found[first : first + period].sum(0).tolist() == lengths
    assert (found[period:] == found[:-period]).all()
    comes = (~found[:period] & np.roll(found[:period], -1, 0)).sum(0)
    assert comes.tolist() == [1, 1, 1, 1, 1, 0, 0]


def test_offsets_of_cycles_are_uniform():
    found = there(rule("cyclic", period=10), 10, np.full(20000, 0.1))
    counts = found.sum(1)  # who begins in which round
    assert counts.sum() == 20000
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000 * 0.9)


def test_draws_are_the_same_in_another_process():
    code = (
        "import numpy as np; from heterobench.availability import Attendance; "
        "from heterobench.config.schema import Availability; "
        "rule = Availability(pattern='markov', mean=0.3, transition=0.2); "
        "print(Attendance(rule, 4, np.full(64, 0.3))(11).astype(int).tolist())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "99"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(Attendance(rule("markov"), 4, np.full(64, 0.3))(11).astype(int).tolist())


# rates --------------------------------------------------------------------------------------------------------------


def test_equal_rates():
    assert availability.rates(rule(mean=0.4), 0, [np.arange(3), np.arange(0)], np.zeros(3, int)).tolist() == [0.4] * 2


def test_rates_follow_the_labels():
    """p_n = max(minimum, mean C <q, mix_n>), at most 1; the mix over training examples alone."""
    labels = np.array([0, 0, 1, 2, 2, 2, 1, 0])
    rows = [np.array([0, 1, 2, 3]), np.array([4]), np.array([], int), np.array([6, 2])]
    of = rule(mean=0.5, by_label=ByLabel(alpha=0.5, minimum=0.05))
    for seed in range(8):
        q = keyed.generator(seed, "availability of classes").dirichlet([0.5] * 3)
        mixes = np.array([[2, 1, 1], [0, 0, 4], [0, 0, 0], [0, 4, 0]]) / 4
        expected = np.clip(0.5 * 3 * mixes @ q, 0.05, 1.0)
        found = availability.rates(of, seed, rows, labels)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert (availability.rates(of, 1, rows, labels) != found).any()


def test_the_mean_rate_is_the_mean_over_draws():
    """E q = 1/C, so without floor and ceiling clients have the rate `mean` on the average over seeds."""
    labels = np.tile(np.arange(10), 10)
    rows = [np.arange(10) * 10 + k for k in range(10)]  # one class each
    of = rule(mean=0.05, by_label=ByLabel(alpha=2.0, minimum=1e-9))
    found = [availability.rates(of, seed, rows, labels) for seed in range(400)]
    np.testing.assert_allclose(np.mean(found, 1), 0.05, rtol=1e-12)  # all classes are held equally often
    assert np.abs(np.mean(found, 0) - 0.05).max() < 5 * 0.05 * np.sqrt(0.09 / 21 * 100 / 400)


def test_rates_are_those_of_the_federations_training_examples():
    federation = nets.federation((9, 1, 12, 7))
    by_label = {"by_label": ByLabel(alpha=0.1, minimum=0.02)}
    s = setting(build("fedavg")[0], federation, nets.task(), schedule=taking(rule(**by_label)), seed=3)
    expected = availability.rates(rule(**by_label), 3, federation.train, federation.pool.y.numpy())
    assert (s.attendance.rates == expected).all()
    assert len(set(expected)) > 1


# cohorts and methods ------------------------------------------------------------------------------------------------


def taking(availability=None, local_work=None, clock=None) -> ScheduleFile:
    return ScheduleFile(title="a test", availability=availability, local_work=local_work, clock=clock)


@each
def test_the_cohort_is_who_is_there_and_has_examples(pattern):
    of, active, found = rule(pattern, mean=0.5), np.array([1, 2, 5, 6]), there(rule(pattern), 20, np.full(8, 0.5))
    attendance = Attendance(of, 0, np.full(8, 0.5))
    for t in range(20):
        cohort = schedule.cohort(taking(of), 0, t, active, attendance)
        assert cohort.tolist() == [i for i in active if found[t, i]]


class Watching(Loop):
    """The loop, which remembers the cohorts."""

    def __init__(self):
        self.cohorts = []

    def run(self, local, down, cohort):
        self.cohorts.append([work.client for work in cohort])
        return super().run(local, down, cohort)


@pytest.mark.parametrize("case", [c for c in CASES if c.name in ("fedavg", "scaffold", "fedau", "local-only")], ids=str)
def test_all_methods_see_the_same_pattern(case):
    federation, of = nets.federation(SIZES), taking(rule("markov", by_label=ByLabel(alpha=0.5, minimum=0.1)))
    watching = Watching()
    s = setting(case.build()[0], federation, nets.task(), rounds=10, epochs=1, schedule=of)
    run(replace(s, executor=watching))
    p = availability.rates(of.availability, 0, federation.train, federation.pool.y.numpy())
    expected = [[i for i in np.flatnonzero(row) if i in federation.active] for row in there(rule("markov"), 10, p)]
    assert watching.cohorts == [own for own in expected if own]


def test_pooled_data_are_always_there_and_all_work_is_done():
    given = {"federation": nets.federation(), "task": nets.task(), "rounds": 3, "epochs": 2, "batch_size": 4}
    rare = taking(rule(mean=0.01), LocalWork(min=0.1, max=0.1))
    ours, plain = (run(setting(build("centralised")[0], **given, schedule=of)) for of in (rare, taking()))
    assert torch.equal(ours.server["theta"], plain.server["theta"])
    assert ours.gradient_examples == plain.gradient_examples


# unequal local work -------------------------------------------------------------------------------------------------


def test_shares_of_work_are_uniform_and_keyed():
    of = taking(local_work=LocalWork(min=0.2, max=0.6))
    keys = list(product(range(40), range(25)))
    found = np.array([schedule.share(of, 0, t, i) for t, i in keys])
    assert found.min() >= 0.2
    assert found.max() <= 0.6
    counts = np.histogram(found, 8, (0.2, 0.6))[0]
    assert np.abs(counts - 125).max() < 5 * np.sqrt(125 * 7 / 8)
    assert found.tolist() == [schedule.share(of, 0, t, i) for t, i in keys]
    assert len(set(found)) == len(found)
    assert schedule.share(of, 1, 0, 0) != schedule.share(of, 0, 0, 0)
    assert schedule.share(taking(), 0, 0, 0) == 1


@pytest.mark.parametrize(("share", "steps"), [(1.0, 6), (0.99, 6), (0.5, 3), (0.4, 2), (0.25, 2), (0.1, 1), (0.01, 1)])
def test_a_share_is_that_of_the_steps_at_least_one(share, steps):
    """12 examples in batches of 4, 2 epochs; the batches that are done are the first ones."""
    s = setting(build("fedavg")[0], nets.federation((15,)), nets.task(), epochs=2, batch_size=4)
    assert len(s.federation.train[0]) == 12
    found = batches_of(s.local, Work(0, 3, 2, 0.1, {}, share))
    whole = batches(0, 3, 0, np.asarray(s.federation.train[0]), 2, 4)
    assert len(found) == steps
    assert all((a == b).all() for a, b in zip(found, whole, strict=False))


def test_clients_are_told_the_steps_that_they_did():
    done = []
    real, _ = build("fedavg", lr=0.2)

    def finish(work, down, client, d):
        done.append(tuple(d))
        return real.finish(work, down, client, d)

    federation, of = nets.federation((15, 15)), taking(local_work=LocalWork(min=0.1))
    s = setting(replace(real, finish=finish), federation, nets.task(), rounds=6, epochs=5, batch_size=4, schedule=of)
    spent = run(s).gradient_examples
    expected = [max(1, int(15 * schedule.share(of, 0, t, i) + 0.5)) for t in range(6) for i in range(2)]
    assert [steps for steps, *_ in done] == expected
    assert [rate for _, rate, _ in done] == pytest.approx([0.2 * steps for steps in expected])
    assert [t for *_, t in done] == [t for t in range(6) for _ in range(2)]
    assert len(set(expected)) > 3
    assert spent == 4 * sum(expected)


BUSY = taking(rule("markov", mean=0.6), LocalWork(min=0.1))


@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
@pytest.mark.parametrize("case", [c for c in CASES if c.name in ("fedavg", "fedau", "afa-cs", "scaffold")], ids=str)
def test_executors_agree(case, executor):
    """Also over rounds in which nobody is there: one of the first, before any executor has begun, and later ones."""
    s = setting(
        case.build(lr=0.05)[0], nets.federation(SIZES, dtype=torch.float64), nets.task(torch.float64),
        rounds=8, epochs=2, batch_size=4, schedule=BUSY,
    )  # fmt: skip
    with_gaps = Gaps(s.attendance, {0, 3})
    s.__dict__["attendance"] = with_gaps
    with closing(executor()) as e:
        other = replace(s, executor=e)
        other.__dict__["attendance"] = with_gaps
        assert_same(run(other), run(s), 1e-10)


class Gaps:
    """An attendance with rounds in which nobody is there."""

    def __init__(self, attendance, empty):
        self._attendance, self._empty = attendance, empty

    def __call__(self, round):
        found = self._attendance(round)
        return found & False if round in self._empty else found


# nobody -------------------------------------------------------------------------------------------------------------

CLOCK = Clock(
    examples_per_second=LogNormal(median=1000), downlink_bytes_per_second=LogNormal(median=2000),
    uplink_bytes_per_second=LogNormal(median=500), server_seconds=0.25,
)  # fmt: skip
NOBODY = taking(rule("cyclic", mean=0.1, period=2000), clock=CLOCK)  # one in ten rounds: long stretches of absence


class Closed:
    """An executor that must not be asked."""

    def run(self, local, down, cohort):
        raise AssertionError("there is nobody to train")


@pytest.mark.parametrize("case", [c for c in CASES if not {"pooled", "selective"} & c.build()[0].tags], ids=str)
def test_a_round_without_anybody_changes_nothing_but_the_time(case):
    s = setting(case.build()[0], nets.federation((9, 7)), nets.task(), rounds=3, epochs=1, schedule=taking(clock=CLOCK))
    before = advance(s, begin(s))
    empty = replace(s, schedule=taking(rule(mean=1), clock=CLOCK), executor=Closed())
    empty.__dict__["attendance"] = Gaps(empty.attendance, {1})
    after = advance(empty, before)
    assert after.round == 2
    assert after.server is before.server
    assert after.clients is before.clients
    for name in ("bytes_up", "bytes_down", "gradient_examples"):
        assert getattr(after, name) == getattr(before, name)
    ended = s.local.at(1) is None  # nobody waits for a method that has ended
    waited = 0 if ended or "silent" in s.algorithm.tags else 0.25
    assert after.simulated_seconds == pytest.approx(before.simulated_seconds + waited, rel=1e-15)
    assert np.isnan(after.train_loss) or ended
    assert np.isfinite(advance(s, after).train_loss)


def test_a_run_that_nobody_comes_to_is_refused_before_it_begins(tmp_path):
    """Its first model is nobody's result."""
    s = setting(build("fedau")[0], nets.federation((9, 7)), nets.task(), rounds=4, epochs=1, schedule=NOBODY, seed=3)
    assert not any(s.attendance(t).any() for t in range(4))
    with pytest.raises(RunError, match=r"availability: nobody comes in any of the 4 rounds \(seed 3\)"):
        recorded(s, tmp_path)
    assert not record.Record(tmp_path).rounds


def test_rounds_without_anybody_are_recorded_as_what_they_are(tmp_path):
    """Somebody comes in the second of four: no loss, no bytes in the others, and the model stays."""
    s = setting(
        build("fedau")[0], nets.federation((9, 7)), nets.task(), rounds=4, epochs=1,
        schedule=taking(rule(mean=1), clock=CLOCK),
    )  # fmt: skip
    s.__dict__["attendance"] = Gaps(s.attendance, {0, 2, 3})
    recorded(s, tmp_path)
    metrics = [row["metrics"] for row in record.Record(tmp_path).rounds]
    assert [np.isnan(m["train_loss"]) for m in metrics] == [True, False, True, True]
    assert [m["bytes_up"] > 0 for m in metrics] == [False, True, True, True]
    assert metrics[1]["bytes_up"] == metrics[3]["bytes_up"]
    assert metrics[1]["validation_loss"] == metrics[3]["validation_loss"] != metrics[0]["validation_loss"]
    assert np.diff([m["simulated_seconds"] for m in metrics])[1:] == pytest.approx([0.25, 0.25])
    assert '"train_loss":"NaN"' in (tmp_path / record.ROUNDS).read_text()


def recorded(s, folder: Path):
    keys = ("run_id", "benchmark", "preset", "scenario", "arm", "seed")
    recorder = Recorder(folder, dict.fromkeys(keys, "test"))
    found = train(s, s.federation, recorder, {}, checkpoint_seconds=0)
    recorder.end("finished")
    return found


class Killed(BaseException):
    pass


@each
@pytest.mark.parametrize("name", ["fedau", "anarchic-fl"])
def test_a_killed_run_goes_on_with_the_pattern(pattern, name, tmp_path):
    """Through rounds without anybody, whose state is a checkpoint like any other."""
    given = {"form": "cross-silo"} if name == "anarchic-fl" else {"cutoff": 2}
    of = taking(rule(pattern, mean=0.2), LocalWork(min=0.1), CLOCK)
    algorithm = build(name, **given)[0]

    def setting_of(life):
        def serve(server, up, info):
            if info.round >= life:
                raise Killed
            return algorithm.serve(server, up, info)

        whole = replace(algorithm, serve=serve)
        return setting(whole, nets.federation((9, 7)), nets.task(), rounds=12, epochs=2, batch_size=4, schedule=of)

    straight, theta, _ = recorded(setting_of(99), tmp_path / "straight")
    cohorts = [setting_of(99).attendance(t).sum() for t in range(12)]
    assert 0 in cohorts
    assert len(set(cohorts)) > 1
    with pytest.raises(Killed):
        recorded(setting_of(5), tmp_path / "killed")
    stored = checkpoint.load(tmp_path / "killed" / record.CHECKPOINTS)[0]
    assert 5 <= stored.round < 12
    resumed, again, _ = recorded(setting_of(99), tmp_path / "killed")
    assert torch.equal(theta, again)
    assert resumed.simulated_seconds == straight.simulated_seconds
    for i, own in straight.clients.items():
        assert all(torch.equal(own[key], resumed.clients[i][key]) for key in own)
    rounds_ = [(tmp_path / which / record.ROUNDS).read_bytes() for which in ("straight", "killed")]
    assert rounds_[0] == rounds_[1]


# parameter files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names(PROJECT, "schedules"))
def test_our_schedules_are_read_and_have_a_clock(name):
    assert load(PROJECT, "schedules", name, ScheduleFile).clock


GOOD = {"pattern": "markov", "mean": 0.1, "transition": 0.05}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"participation": 0.5, "availability": GOOD}, "availability: allowed with participation: 1.*found.*0.5"),
        ({"stragglers": 0.5, "local_work": {"min": 0.1}}, "local_work: allowed with stragglers: 0.*0.5"),
        ({"local_work": {"min": 0.6, "max": 0.5}}, "local_work: min must be at most max.*0.6 and 0.5"),
        ({"local_work": {"min": 0}}, r"local_work\.min.*greater than 0.*found 0"),
        ({"local_work": {"max": 1}}, r"local_work\.min.*required"),
        ({"local_work": {"min": 0.5, "maximum": 1}}, "local_work.*unknown key 'maximum'; did you mean 'max'"),
        ({"availability": GOOD | {"pattern": "poisson"}}, r"availability\.pattern.*'bernoulli'.*found 'poisson'"),
        ({"availability": GOOD | {"mean": 0}}, r"availability\.mean.*greater than 0.*found 0"),
        ({"availability": GOOD | {"mean": 1.5}}, r"availability\.mean.*less than or equal to 1.*found 1.5"),
        ({"availability": GOOD | {"transition": 1.2}}, r"availability\.transition.*found 1.2"),
        (
            {"availability": GOOD | {"period": 5}},
            "availability: period: allowed with pattern: cyclic.*found 5 with mar",
        ),
        ({"availability": {"pattern": "markov", "mean": 0.1}}, "availability: transition: pattern: markov needs it"),
        ({"availability": {"pattern": "cyclic", "mean": 0.1}}, "availability: period: pattern: cyclic needs it"),
        ({"availability": GOOD | {"by_label": {"alpha": 0.1}}}, r"availability\.by_label\.minimum.*required"),
        (
            {"availability": GOOD | {"by_label": {"alpha": 0.1, "minimum": 0.2}}},
            r"availability: by_label\.minimum: must be at most mean.*0.2 and 0.1",
        ),
    ],
)
def test_mistakes_are_told(values, told):
    with pytest.raises(ConfigurationError, match=rf"params/schedules/x\.yaml: {told}"):
        validated(ScheduleFile, {"title": ""} | values, "params/schedules/x.yaml")
