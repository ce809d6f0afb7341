"""Steps recorded once and replayed: what a GPU does with CUDA graphs, here with a recorder that calls again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from contract.quadratic import build
from contract.test_executors import assert_like_loop, cohort_of
from heterobench.executor.vmap import Vmap


class Recorder:
    """Counts recordings and replays, and computes while it records, as a warm-up does."""

    def __init__(self):
        self.recordings = self.replays = 0
        self.executor = None

    def address(self) -> int | None:
        """Of the buffer that a graph would write to."""
        return self.executor and self.executor._stack.state["theta"].data_ptr()

    def __call__(self, function):
        self.recordings += 1
        address = self.address()
        for _ in range(3):
            function()

        def replay():
            self.replays += 1
            assert self.address() == address, "a graph would write to the old buffers"
            function()

        return replay


def steps(given) -> int:
    """Local steps of the longest client of a cohort: 2 batches an epoch for those with 5 to 8 examples, ..."""
    local, _, cohort = given
    return max(w.epochs * -(-len(local.federation.train[w.client]) // local.batch_size) for w in cohort)


def test_a_second_round_replays_what_the_first_has_recorded():
    given, recorder = cohort_of(build("scaffold")[0]), Recorder()
    executor = Vmap(recorder=recorder)
    assert_like_loop(executor, given)
    shapes, replays = recorder.recordings, recorder.replays
    assert 1 <= shapes <= replays == steps(given)
    local, down, cohort = given
    moved = {name: tensor + 0.1 for name, tensor in down.items()}  # replay reads new values, not recorded ones
    assert_like_loop(executor, (local, moved, [work._replace(round=1) for work in cohort]))
    assert (recorder.recordings, recorder.replays) == (shapes, 2 * replays)


def test_a_new_step_size_is_a_new_recording():
    given, recorder = cohort_of(build("fedavg")[0]), Recorder()
    executor = Vmap(recorder=recorder)
    assert_like_loop(executor, given)
    shapes = recorder.recordings
    local, down, cohort = given
    assert_like_loop(executor, (local, down, [work._replace(lr=0.01) for work in cohort]))
    assert recorder.recordings == 2 * shapes


def test_a_larger_cohort_gets_larger_buffers():
    recorder = Recorder()
    recorder.executor = executor = Vmap(recorder=recorder)
    algorithm = build("fedprox", momentum=0.5)[0]
    for clients in [(6, 4), (6, 4, 0, 2, 1), (6, 4, 0), (2, 1, 4, 6, 0)]:
        local, down, cohort = cohort_of(algorithm, clients)
        if executor._local is None:
            shared = local
        assert_like_loop(executor, (shared, down, cohort))


def test_steps_that_look_at_their_number_are_not_recorded():
    base, recorder = build("fedavg")[0], Recorder()

    def slower(work, g, step):
        return base.step(work, g / (1 + step.index), step)

    assert_like_loop(Vmap(recorder=recorder), cohort_of(replace(base, step=slower)))
    assert recorder.recordings
    assert not recorder.replays


def test_a_step_may_not_change_the_entries_of_the_working_state():
    base = build("fedavg")[0]

    def growing(work, g, step):
        return base.step(work, g, step) | {"new": g}

    with pytest.raises(RuntimeError, match="entries of the working state"):
        Vmap(recorder=Recorder()).run(*cohort_of(replace(base, step=growing)))


def test_states_outside_the_stack_stay_as_they_are():
    local, down, cohort = cohort_of(build("scaffold")[0])
    before = {name: tensor.clone() for name, tensor in down.items()}
    results = Vmap(recorder=Recorder()).run(local, down, cohort)
    copies = [{name: tensor.clone() for name, tensor in result.uplink.items()} for result in results]
    executor = Vmap(recorder=Recorder())
    first = executor.run(local, down, cohort)
    executor.run(local, down, [work._replace(round=5) for work in cohort])
    for result, copy in zip(first, copies, strict=True):  # a later round does not write into an earlier one's results
        assert all(torch.equal(result.uplink[name], copy[name]) for name in copy)
    assert all(torch.equal(down[name], before[name]) for name in before)
