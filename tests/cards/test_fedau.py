"""Card fedau (Wang and Ji 2024): its numbered invariants and its traps, through the real engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contract import nets
from contract.quadratic import Quadratics, build, run, setting
from contract.spies import Listening, attending, noisy, rounds
from heterobench.algorithm import Done
from heterobench.availability import Attendance
from heterobench.config.schema import Availability, ScheduleFile
from heterobench.engine.synchronous import begin

F64 = torch.float64
NEVER = 10**6  # a cut-off that never fires
SIZES = (4, 5, 3, 6)


def by_the_card(present, cutoff) -> tuple[list[float], list[int]]:
    """omega in each round in which a client is there, and all gaps, by the card's counters: an independent road."""
    gaps, count, omegas = [], 0, []
    for there in present:
        if there:
            omegas.append(float(np.mean(gaps)) if gaps else 1.0)
            gaps.append(count + 1)
            count = 0
        else:
            count += 1
            if count >= cutoff:
                gaps.append(count)
                count = 0
    return omegas, gaps


def by_the_code(present, cutoff) -> tuple[list[float], dict[str, int]]:
    """The same from `finish` with an update of 1, and the client's state afterwards."""
    algorithm, _ = build("fedau", cutoff=cutoff)
    x, one = torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64)
    client, omegas = algorithm.init_client(x), []
    for round in np.flatnonzero(present):
        up, client = algorithm.finish({"theta": one}, {"theta": x}, client, Done(5, 0.5, int(round)))
        omegas.append(float(up["delta"]))
    return omegas, {name: int(value) for name, value in client.items()}


def at(*rounds_, length=None) -> np.ndarray:
    """bool: there in these rounds, counted from 1 as on the card."""
    present = np.zeros(length or max(rounds_), bool)
    present[np.array(rounds_) - 1] = True
    return present


# invariants ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cutoff", [1, 50])
def test_invariant_1_everybody_present_is_the_uniform_average(cutoff):
    """fedau 1: every gap is 1."""
    given = {"federation": noisy(SIZES), "epochs": 2, "batch_size": 3}
    ours = setting(build("fedau", lr=0.1, cutoff=cutoff)[0], **given)
    plain = setting(build("fedavg", lr=0.1, weighting="uniform")[0], **given)
    for one, other in zip(rounds(ours, 5), rounds(plain, 5), strict=True):
        torch.testing.assert_close(one.server["theta"], other.server["theta"], atol=1e-14, rtol=0)
        assert {(int(c["rounds"]), int(c["gaps"])) for c in one.clients.values()} == {(one.round, one.round)}


@pytest.mark.parametrize("c", [1, 2, 5])
@pytest.mark.parametrize("cutoff", [5, NEVER])
def test_invariant_2_a_fixed_period(c, cutoff):
    """fedau 2: there in rounds c, 2c, ...: 1, then exactly c; from round 1 on: gaps 1, c, c, ..."""
    omegas, state = by_the_code(at(*range(c, 10 * c + 1, c)), cutoff)
    assert omegas == [1] + [c] * 9
    assert state == {"rounds": 10 * c, "gaps": 10}
    omegas, _ = by_the_code(at(*range(1, 400 * c + 1, c)), cutoff)
    expected = [1.0] + [(1 + (m - 1) * c) / m for m in range(1, 400)]
    np.testing.assert_allclose(omegas, expected, rtol=1e-14)


def test_invariant_3_worked_cut_off():
    """fedau 3: K = 3, rounds 1 and 6: gaps [1, 3] before round 6, [1, 3, 2] after it."""
    omegas, state = by_the_code(at(1, 6), 3)
    assert omegas == [1, 2]
    assert state == {"rounds": 6, "gaps": 3}
    assert by_the_card(at(1, 6), 3) == ([1, 2], [1, 3, 2])


@pytest.mark.parametrize("cutoff", [1, 2, 3, 7, NEVER])
def test_invariant_3_gaps_are_those_of_the_cards_counters(cutoff):
    """fedau 3: the closed form over absences, however long, is the counter that runs in every round."""
    generator = np.random.default_rng(cutoff)
    for rate in (0.03, 0.2, 0.5, 0.9):
        present = generator.random(300) < rate
        present[-1] = True
        omegas, gaps = by_the_card(present, cutoff)
        found, state = by_the_code(present, cutoff)
        np.testing.assert_allclose(found, omegas, rtol=1e-14)
        assert state == {"rounds": sum(gaps), "gaps": len(gaps)}


@pytest.mark.parametrize("cutoff", [1, 4])
def test_invariant_4_weights_are_at_most_the_cut_off(cutoff):
    """fedau 4: K = 1 gives 1 for everybody."""
    present = np.random.default_rng(1).random(2000) < 0.05
    omegas, _ = by_the_code(present, cutoff)
    assert max(omegas) <= cutoff
    assert max(omegas) > 0.8 * cutoff


@pytest.mark.parametrize("cutoff", [1, 4, 12, NEVER])
@pytest.mark.parametrize("p", [0.1, 0.4])
def test_invariant_5_mean_gap_of_bernoulli_clients(p, cutoff):
    """fedau 5: 1/p without a cut-off, (1 - (1 - p)^K) / p with one; within five standard deviations."""
    of = Availability(pattern="bernoulli", mean=p)
    attendance = Attendance(of, 0, np.full(20, p))
    present = np.stack([attendance(t) for t in range(1500)])
    states = [by_the_code(own, cutoff)[1] for own in present.T]
    gaps = sum(state["gaps"] for state in states)
    lengths = np.arange(1, min(cutoff, 2000) + 1)
    law = p * (1 - p) ** (lengths - 1)
    law[-1] = (1 - p) ** (len(lengths) - 1)
    mean = law @ lengths
    assert mean == pytest.approx((1 - (1 - p) ** cutoff) / p, rel=1e-9)
    deviation = np.sqrt(law @ lengths**2 - mean**2)
    found = sum(state["rounds"] for state in states) / gaps
    assert abs(found - mean) <= 5 * deviation / np.sqrt(gaps) + 1e-12


# one client in each round, of three with rates 1/2, 1/4 and 1/4
TURNS = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]])


def settled(name, **more) -> np.ndarray:
    """Model [d] after many short steps on three parabolas of curvature 1, averaged over a turn."""
    s = setting(build(name, lr=0.01, **more)[0], parabolas().federation(), rounds=2500, epochs=1)
    *_, a, b, c, d = (state.server["theta"].numpy() for state in rounds(attending(s, TURNS), 2500))
    return np.mean([a, b, c, d], 0)


def parabolas() -> Quadratics:
    problem = Quadratics.draw(clients=3)
    return Quadratics(np.ones_like(problem.a), problem.b, problem.n)


def test_invariant_6_fixed_points_under_unequal_rates():
    """fedau 6: FedAU goes to mean(b), averaging over participants to sum p b / sum p."""
    b, p = parabolas().b, np.array([0.5, 0.25, 0.25])
    fair, bent = b.mean(0), p @ b
    apart = np.abs(fair - bent).max()
    assert np.abs(settled("fedau", cutoff=NEVER) - fair).max() < 0.02 * apart
    assert np.abs(settled("fedavg", weighting="uniform") - bent).max() < 0.02 * apart


# traps --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cutoff", [1, 3, NEVER])
def test_trap_the_sum_is_divided_by_all_clients(cutoff):
    """x moves by eta_g / N sum omega_n Delta_n, N counting the absent; omega from the card's counters."""
    present = np.random.default_rng(5).random((14, 4)) < 0.4
    present[6] = False
    spy = Listening(build("fedau", lr=0.1, cutoff=cutoff, server_lr=0.7)[0])
    s = attending(setting(spy.algorithm, noisy(SIZES), rounds=14, epochs=2, batch_size=3), present)
    omegas = [iter(by_the_card(own, cutoff)[0]) for own in present.T]
    x, seen = begin(s).server["theta"], 0
    for t, state in enumerate(rounds(s, 14)):
        for i in np.flatnonzero(present[t]):
            x = x + 0.7 / 4 * next(omegas[i]) * spy.deltas[seen]
            seen += 1
        torch.testing.assert_close(state.server["theta"], x, atol=1e-13, rtol=0)
    assert seen == len(spy.deltas) == present.sum()


def test_trap_the_current_gap_does_not_weigh_the_current_update():
    """A long absence shows in the weight of the next update, not of this one."""
    assert by_the_code(at(1, 2, 12, 13), NEVER)[0] == [1, 1, 1, 4]


def test_trap_clients_without_examples_are_not_counted():
    """N is the number of clients that can take part."""
    spy = Listening(build("fedau", lr=0.1)[0])
    s = setting(spy.algorithm, noisy((4, 0, 3, 0)), epochs=1, batch_size=3)
    found, x = run(s).server["theta"], begin(s).server["theta"]
    torch.testing.assert_close(found, x + sum(spy.deltas) / 2, atol=1e-14, rtol=0)


def test_counts_are_exact_in_single_precision():
    """Rounds are whole numbers, not floats of the model: 2^24 + 1 is one."""
    algorithm, _ = build("fedau", cutoff=NEVER)
    x = torch.zeros(1)
    client = algorithm.init_client(x)
    for round in (2**24 - 1, 2**24):
        _, client = algorithm.finish({"theta": x + 1}, {"theta": x}, client, Done(1, 0.1, round))
    assert int(client["rounds"]) == 2**24 + 1


def test_traffic_is_that_of_fedavg():
    """8 P bytes per participant: omega_n is inside the update."""
    half = ScheduleFile(title="half", participation=0.5)
    ours, plain = (
        run(setting(build(name)[0], nets.federation(), nets.task(), epochs=1, rounds=3, schedule=half))
        for name in ("fedau", "fedavg")
    )
    assert (ours.bytes_up, ours.bytes_down) == (plain.bytes_up, plain.bytes_down)


@pytest.mark.parametrize("settings", [{"cutoff": 0}, {"weighting": "weighted"}], ids=str)
def test_what_is_not_offered_is_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        build("fedau", **settings)
