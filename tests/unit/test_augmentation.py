"""Random crops and flips of training images."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from contract import nets
from contract.quadratic import build, run, setting
from heterobench import models, resolve
from heterobench.augmentation import SHIFT, Views
from heterobench.config.schema import ModelFile, ScheduleFile
from heterobench.errors import ConfigurationError
from heterobench.executor import local, loop, vmap, workers
from heterobench.federation import Examples, Viewed
from heterobench.project import Project
from heterobench.records.recorder import Recorder
from heterobench.resolve import identity
from heterobench.training import train

SIDE = 7
HALF = (2 * SHIFT + 1) ** 2


def images(count=3, channels=2, height=9, width=6, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, channels, height, width))).float()


def federation(**more):
    """Clients with images of 7 x 7 pixels, which they train on under random views."""
    return replace(nets.federation(side=SIDE, **more), views=Views.crops_and_flips(SIDE, SIDE))


def viewed(x, y=None, **more) -> Viewed:
    pool = Examples(x, torch.arange(len(x)) if y is None else y, **more)
    return Viewed(pool, Views.crops_and_flips(*x.shape[2:]))


def test_every_view_is_a_crop_of_the_mirrored_image_flipped_or_not():
    """Against torch's own padding: all crops of the padded image, and each of them from right to left."""
    x = images()
    padded = functional.pad(x, (SHIFT,) * 4, mode="reflect")
    crops = [padded[:, :, i : i + 9, j : j + 6] for i in range(2 * SHIFT + 1) for j in range(2 * SHIFT + 1)]
    wanted = sorted(one[2].numpy().tobytes() for crop in crops for one in (crop, crop.flip(3)))
    examples = viewed(x)
    assert len(examples.views) == 2 * HALF
    seen = examples.batch(2 * len(examples.views) + np.arange(len(examples.views)))
    assert seen.y.tolist() == [2] * 2 * HALF
    assert sorted(one.numpy().tobytes() for one in seen.x) == wanted
    assert x[2].numpy().tobytes() in wanted


def test_a_batch_has_the_memory_layout_of_one_without_views():
    """A step's last bits depend on it."""
    assert viewed(images()).batch(np.array([5, 400])).x.is_contiguous()


def test_views_come_before_normalisation():
    rng = np.random.default_rng(0)
    raw = torch.from_numpy(rng.integers(0, 256, (4, 3, 8, 8), dtype=np.uint8))
    y, mean, std = np.arange(4), (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    kept = Examples.normalised(raw.numpy(), y, mean, std, 255)  # few: normalised at once
    scale, shift = 1 / (255 * torch.tensor(std)), -torch.tensor(mean) / torch.tensor(std)
    codes = np.array([0, 170, 333, 600])
    made = viewed(raw, scale=scale.view(3, 1, 1), shift=shift.view(3, 1, 1)).batch(codes).x
    torch.testing.assert_close(made, viewed(kept.x).batch(codes).x, atol=1e-5, rtol=1e-5)


def test_an_image_has_at_least_one_pixel_more_than_it_may_move_by():
    file = ModelFile(title="", architecture="mlp", augmentation="crops and flips")
    models.check_inputs(file, "image", (1, 5, 5), "here")
    for kind, shape in (("image", (1, 4, 9)), ("signal", (1, 9, 9)), ("table", (9,))):
        with pytest.raises(ConfigurationError) as error:
            models.check_inputs(file, kind, shape, "a.yaml on b.yaml")
        assert str(error.value) == (
            "a.yaml on b.yaml: augmentation: 'crops and flips' takes images of more than 4x4 pixels, found inputs of "
            f"kind {kind} and shape {list(shape)}; allowed here: 'none'"
        )


def test_all_views_are_equally_likely_and_independent_of_the_example():
    examples = viewed(images(2))
    rows = np.tile([0, 1], 50_000)
    drawn = examples.drawn(rows, np.random.default_rng(1))
    assert np.array_equal(drawn // len(examples.views), rows)
    for example in (0, 1):
        counts = np.bincount(drawn[rows == example] % len(examples.views), minlength=2 * HALF)
        # chi-square with 161 degrees of freedom: 255 is passed once in a million
        assert ((counts - 50_000 / (2 * HALF)) ** 2 / (50_000 / (2 * HALF))).sum() < 255


class Watching:
    """A task that keeps the batches that it is asked a gradient of."""

    def __init__(self, task):
        self._task, self.seen = task, []

    def __getattr__(self, name):
        return getattr(self._task, name)

    def grad(self, theta, batch, *term):
        self.seen.append(batch)
        return self._task.grad(theta, batch, *term)


def batches_of(rounds=2, epochs=2, seed=0, size=4):
    task = Watching(nets.task(side=SIDE))
    algorithm, _ = build("fedavg", lr=0.1)
    run(setting(algorithm, federation(sizes=(size,)), task, rounds=rounds, epochs=epochs, seed=seed))
    return [batch.x for batch in task.seen]


def test_every_epoch_and_round_sees_other_views_and_a_repetition_the_same():
    first, again, other = batches_of(), batches_of(), batches_of(seed=1)
    assert len(first) == 4
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    ordered = [x.flatten(1).sort(0).values for x in (*first, other[0])]  # an epoch's order is another matter
    assert not any(torch.equal(a, b) for i, a in enumerate(ordered) for b in ordered[:i])
    for rounds, epochs in ((4, 1), (1, 4)):
        assert len({x.numpy().tobytes() for x in batches_of(rounds, epochs, size=1)}) > 2, "one example, four views"


def test_clients_see_views_of_their_own():
    algorithm, _ = build("fedavg", lr=0.1)
    data, task = federation(sizes=(1,) * 8), nets.task(side=SIDE)
    down = {"theta": task.init(0)}
    prepared = [
        local.prepared(local.Local(algorithm, task, data, 4, 0), down, local.Work(i, 0, 1, 0.1, {})) for i in range(8)
    ]
    assert all(one.examples is data.viewed for one in prepared)
    assert len({int(one.batches[0][0]) % len(data.views) for one in prepared}) > 4


def test_a_client_who_does_less_sees_the_same_views():
    examples = viewed(images(8))
    rows, other = np.arange(8), np.arange(3)
    first, second = np.random.default_rng(3), np.random.default_rng(3)
    assert np.array_equal(examples.drawn(rows, first)[:3], examples.drawn(other, second))


SCHEDULE = ScheduleFile(title="", participation=0.7, stragglers=0.5)
EXECUTORS = {
    "vmap": (vmap.Vmap, 1e-5),
    "vmap, recorded": (lambda: vmap.Vmap(recorder=lambda function: function() or function), 1e-5),
    "workers": (lambda: workers.Workers(2), 0),
}


def outcome(executor, algorithm, data):
    with closing(executor()) as ready:
        s = setting(algorithm, data, nets.task(side=SIDE), rounds=3, epochs=2, batch_size=4, schedule=SCHEDULE)
        return run(replace(s, executor=ready)).server["theta"]


@pytest.mark.parametrize("name", ["fedavg", "scaffold", "curriculum-fl"])
@pytest.mark.parametrize(("executor", "tolerance"), EXECUTORS.values(), ids=EXECUTORS)
def test_executors_agree(name, executor, tolerance):
    algorithm, _ = build(name, lr=0.1)
    found, expected = (outcome(e, algorithm, federation()) for e in (executor, loop.Loop))
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
    assert not torch.allclose(expected, outcome(loop.Loop, algorithm, nets.federation(side=SIDE)), atol=1e-3)


@pytest.mark.parametrize("name", ["afl-analytic", "ccvr", "ggeur"])
def test_statistics_are_of_images_as_they_are(name):
    """They are those of the data, exact for any partition, which views drawn by round and client would not be."""
    algorithm, _ = build(name)
    found, expected = (
        run(setting(algorithm, data, nets.task(side=SIDE), rounds=1, batch_size=4)).server
        for data in (federation(), nets.federation(side=SIDE))
    )
    assert all(torch.equal(found[entry], expected[entry]) for entry in expected)


def test_evaluation_sees_images_as_they_are(tmp_path):
    """The loss in the record of a round is that of the plain test set under the model of that round."""
    data, task = federation(), nets.task(side=SIDE)
    algorithm, _ = build("fedavg", lr=0.1)
    keys = ("run_id", "benchmark", "preset", "scenario", "arm", "seed")
    recorder = Recorder(tmp_path, dict.fromkeys(keys, "test"))
    _, theta, _ = train(
        setting(algorithm, data, task, rounds=2, batch_size=4), data, recorder, {}, checkpoint_seconds=0
    )
    recorder.end("finished")
    last = json.loads((tmp_path / "rounds.jsonl").read_text().splitlines()[-1])["metrics"]
    plain = nets.federation(side=SIDE).global_test
    assert last["test_loss"] == pytest.approx(float(task.scores(theta, plain.chunks())["loss"].mean()), rel=1e-6)


def test_augmentation_is_part_of_what_a_run_is():
    """Another file of the same net with augmentation is another configuration, hence another run."""
    project = Project.find()
    benchmark = resolve.benchmark(project, "published-niid", "gpu")
    jobs = {job.scenario.model: job.configuration() for job in benchmark.jobs() if job.arm.name == "fedavg"}
    plain, augmented = jobs["lenet-unit-interval"], jobs["lenet-unit-interval-augmented"]
    origin = {"seed": 0, "data_hash": "", "partition_hash": "", "code": ""}
    changed = augmented | {"model": augmented["model"] | {"augmentation": "none"}}
    assert changed["model"] == plain["model"] | {"name": "lenet-unit-interval-augmented"}
    assert identity(augmented, **origin) != identity(changed, **origin)
