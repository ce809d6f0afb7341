"""What clients see: transformed inputs, observed and missing labels, stages; and who is only tested."""

from __future__ import annotations

import colorsys
import math
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

from contract import nets
from contract.arms import CASES
from contract.quadratic import Quadratics, build, run, setting
from heterobench import models, resolve
from heterobench.commands.single import draw_partitions
from heterobench.config.schema import ModelFile, ScheduleFile
from heterobench.data import readers, transforms
from heterobench.data.dataset import Dataset, open_dataset
from heterobench.data.fetch import MIRROR, fetch
from heterobench.data.prepare import prepare
from heterobench.engine import checkpoint
from heterobench.engine.synchronous import advance, begin
from heterobench.errors import ConfigurationError, RunError
from heterobench.evaluation import evaluate_scenario
from heterobench.executor.local import batches_of
from heterobench.executor.loop import Loop
from heterobench.executor.vmap import Vmap
from heterobench.executor.workers import Workers
from heterobench.federation import Examples, Federation, chosen, joined
from heterobench.files import file_digest
from heterobench.measures.context import EvaluatedModel, EvaluationData
from heterobench.measures.groups import ANY, measured
from heterobench.metrics.clients import held_out
from heterobench.opening import Opened
from heterobench.partition.partition import Partition
from heterobench.partition.rows import Rows
from heterobench.partition.store import open_partition
from heterobench.project import Project
from heterobench.records.record import Record
from heterobench.report import sections
from heterobench.report.data import ReportData
from heterobench.task import Classification
from heterobench.training import evaluate, run_job, thetas

RNG = np.random.default_rng
REPOSITORY = Path(__file__).parents[2]


def images(n=40, channels=1, side=6, maximum=255, seed=0):
    return RNG(seed).integers(0, maximum + 1, (n, channels, side, side)).astype(np.uint8)


# transformations ----------------------------------------------------------------------------------------------------


def test_noise_has_the_deviation_that_was_asked_for():
    x = np.zeros((300, 1, 10, 10), np.float32)
    deviations = np.repeat([0.0, 0.5, 2.0], 100)
    found = transforms.noise(x, deviations, 1)
    assert np.array_equal(found[:100], x[:100])
    for first, deviation in ((100, 0.5), (200, 2.0)):
        own = found[first : first + 100] / deviation
        assert abs(own.mean()) < 5 / 100  # five standard errors of 10,000 draws
        assert abs(own.std() - 1) < 5 / math.sqrt(2 * 10_000)
    assert np.abs(np.corrcoef(found[100:].reshape(200, -1)) - np.eye(200)).max() < 0.6  # examples are independent


def test_noise_of_an_example_depends_on_seed_and_example_only():
    x = RNG(2).normal(size=(30, 2, 7)).astype(np.float32)
    some, all_ = np.where(np.arange(30) % 3 == 0, 0.7, 0.0), np.full(30, 0.7)
    assert np.array_equal(transforms.noise(x, some, 1)[::3], transforms.noise(x, all_, 1)[::3])
    assert np.array_equal(transforms.noise(x[:4], all_[:4], 1), transforms.noise(x, all_, 1)[:4])
    assert not np.isclose(transforms.noise(x, all_, 2), transforms.noise(x, all_, 1)).all((1, 2)).any()


def bilinear(image, degrees):
    """Counter-clockwise about the centre, pixel by pixel; outside is 0. Rows grow downwards."""
    height, width = image.shape
    angle, result = math.radians(degrees), np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            # the point (right, up) of the result comes from where a clockwise turn takes it
            right, up = column - (width - 1) / 2, (height - 1) / 2 - row
            x = right * math.cos(angle) + up * math.sin(angle) + (width - 1) / 2
            y = (height - 1) / 2 - (-right * math.sin(angle) + up * math.cos(angle))
            if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                continue
            i, j = min(int(y), height - 2), min(int(x), width - 2)
            a, b = y - i, x - j
            result[row, column] = (
                (1 - a) * (1 - b) * image[i, j]
                + (1 - a) * b * image[i, j + 1]
                + a * (1 - b) * image[i + 1, j]
                + a * b * image[i + 1, j + 1]
            )
    return result


def test_rotation_is_counter_clockwise_bilinear_and_about_the_centre():
    x = images(6, channels=3, side=7).astype(np.float32)
    degrees = np.array([0.0, 90.0, 180.0, -90.0, 37.0, -20.0])
    found = transforms.rotation(x, degrees)
    assert np.array_equal(found[0], x[0])
    for image, turns in ((1, 1), (2, 2), (3, 3)):
        np.testing.assert_allclose(found[image], np.rot90(x[image], turns, (1, 2)), atol=1e-3)
    for image in (4, 5):
        for channel in range(3):
            np.testing.assert_allclose(found[image, channel], bilinear(x[image, channel], degrees[image]), atol=1e-3)


def test_rotation_of_an_image_does_not_depend_on_the_others():
    x, degrees = images(9).astype(np.float32), np.tile([10.0, 0.0, 25.0], 3)
    found = transforms.rotation(x, degrees)
    for i in range(9):
        assert np.array_equal(transforms.rotation(x[i : i + 1], degrees[i : i + 1])[0], found[i])


def test_hue_is_shifted_as_in_the_standard_library():
    x = np.concatenate([images(4, channels=3), np.full((1, 3, 6, 6), 9, np.uint8)]).astype(np.float32)  # grey is last
    degrees = np.array([120.0, -45.0, 0.0, 300.0, 77.0])
    found = transforms.colour(x, degrees, 255)
    assert np.array_equal(found[2], x[2])
    np.testing.assert_allclose(found[0], x[0][[2, 0, 1]], atol=1e-3)  # a third of the circle: red turns to green
    for image in (1, 3, 4):
        for i in range(6):
            for j in range(6):
                hue, saturation, value = colorsys.rgb_to_hsv(*(x[image, :, i, j] / 255).tolist())
                expected = colorsys.hsv_to_rgb((hue + degrees[image] / 360) % 1, saturation, value)
                np.testing.assert_allclose(found[image, :, i, j] / 255, expected, atol=1e-4)


def test_intensity_of_grey_images():
    x = images(3).astype(np.float32)
    found = transforms.colour(x, np.array([0.0, -0.25, 0.5]), 255)
    assert np.array_equal(found[0], x[0])
    np.testing.assert_allclose(found[1], 0.75 * x[1], rtol=1e-6)
    np.testing.assert_allclose(found[2], np.minimum(1.5 * x[2], 255), rtol=1e-6)
    assert (found[2] == 255).any()


def test_colour_needs_grey_or_rgb():
    with pytest.raises(ConfigurationError, match="1 or 3 channels, and the images have 2"):
        transforms.colour(np.zeros((2, 2, 4, 4), np.float32), np.ones(2), 255)


def test_permutation_is_one_fixed_order_for_each_stage():
    x = np.arange(5 * 2 * 3 * 4, dtype=np.float32).reshape(5, 2, 3, 4)
    stages = np.array([0, 1, 2, 1, -1])
    found = transforms.permutation(x, stages, 7)
    assert np.array_equal(found[[0, 4]], x[[0, 4]])
    orders = {i: found[i].ravel() - x[i].min() for i in (1, 2, 3)}
    assert np.array_equal(orders[1], orders[3])
    assert not np.array_equal(orders[1], orders[2])
    assert all(sorted(order) == list(range(24)) for order in orders.values())
    assert not np.array_equal(transforms.permutation(x, stages, 8)[1], found[1])
    assert np.array_equal(transforms.permutation(x[3:], stages[3:], 7), found[3:])


MEAN, STD = [0.4, 0.5, 0.3], [0.2, 0.3, 0.25]


def test_without_strength_a_model_sees_the_same_bits():
    x, y = images(50, channels=3), np.zeros(50, np.int64)
    nothing = {name: np.zeros(50) for name in ("colour", "rotation", "noise")}
    found = transforms.transformed(x, MEAN, STD, 255, nothing, np.zeros(50, int), 3)
    assert np.array_equal(found, Examples.normalised(x, y, MEAN, STD, 255).x.numpy())
    assert found.dtype == np.float32


def test_order_of_the_transformations():
    """Pixels first, then the normalisation, then noise in its units, and the permutation of all of it."""
    x, n = images(8, channels=3), 8
    strengths = {"noise": np.full(n, 0.1), "rotation": np.full(n, 90.0), "colour": np.full(n, 120.0)}
    found = transforms.transformed(x, MEAN, STD, 255, strengths, np.ones(n, int), 3)
    turned = np.rot90(x[:, [2, 0, 1]], axes=(2, 3)) / 255
    normalised = (turned - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    noise = transforms.noise(np.zeros(x.shape, np.float32), strengths["noise"], 3)
    expected = transforms.permutation(normalised + noise, np.ones(n, int), 3)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("names", "per_stage", "kind", "told"),
    [
        (["rotation"], (), "signal", "'rotation' is for data of kind image, and this is 'signal'"),
        (["colour"], (), "table", "'colour' is for data of kind image, and this is 'table'"),
        (["noise"], (), "tokens", "'noise' is for data of kind image or signal, and this is 'tokens'"),
        ([], ("permutation",), "tokens", "'permutation' is for data of kind image or signal"),
        (["blur"], (), "image", "no transformation 'blur'; there are: colour, rotation, noise, permutation"),
        (["permutation"], (), "image", "'permutation' differs from stage to stage only"),
        ([], ("noise",), "image", "'noise' differs from client to client only"),
    ],
)
def test_transformations_that_make_no_sense(names, per_stage, kind, told):
    with pytest.raises(ConfigurationError, match=r"^data set x: ") as error:
        transforms.check(names, per_stage, kind, "data set x")
    assert told in str(error.value)


def test_transformations_that_make_sense():
    transforms.check(["colour", "rotation", "noise"], ("permutation",), "image", "here")
    transforms.check(["noise"], ("permutation",), "signal", "here")
    transforms.check([], (), "tokens", "here")


# a data set and a partition, opened ---------------------------------------------------------------------------------

CLASSES, CLIENTS, EACH = 4, 5, 12


def dataset(kind="image", n=CLIENTS * EACH, tests=24, attributes=None):
    """Every fourth example is of the same class; test examples are of each class, and of each site, in turn."""
    rng = RNG(5)
    shape, maximum, mean, std = {
        "image": ((1, 6, 6), 255, [0.5], [0.25]),
        "signal": ((2, 9), None, [0.1, -0.2], [1.5, 0.5]),
        "table": ((5,), None, [0.0] * 5, [1.0] * 5),
        "tokens": ((7,), None, [], []),
    }[kind]

    def inputs(y):
        if kind == "image":
            return (40 * y.reshape(-1, 1, 1, 1) + rng.integers(0, 60, (len(y), *shape))).astype(np.uint8)
        if kind == "tokens":
            return rng.integers(0, CLASSES, (len(y), *shape)).astype(np.uint8)
        return rng.normal(size=(len(y), *shape)).astype(np.float32)

    y = {"train": np.arange(n) % CLASSES, "test": np.arange(tests) % CLASSES}
    x = {split: inputs(labels) for split, labels in y.items()}
    attributes = attributes or {}
    names = {"names": ["North Pole", "usps", "nowhere"], "about": "where from"}
    return Dataset(
        name="made-up",
        hash="0",
        kind=kind,
        train_x=x["train"],
        train_y=y["train"],
        test_x=x["test"],
        test_y=y["test"],
        train={name: np.arange(n) % 2 for name in attributes},
        test={name: np.arange(tests) // 2 % 2 for name in attributes},
        classes=tuple("abcd"),
        shape=shape,
        maximum=maximum,
        mean=tuple(mean),
        std=tuple(std),
        manifest={"attributes": {name: names | {"use": use} for name, use in attributes.items()}},
    )


def net(dtype=torch.float32, model=nets.MLP):
    """A net for the images of the data set."""
    return Classification(lambda: models.build(model, (1, 6, 6), CLASSES, "test").to(dtype))


def linear():
    """A linear layer, and five random settings of it [5, P]."""
    task = net(model=ModelFile(title="softmax", architecture="softmax"))
    return task, torch.randn(5, sum(task.layout.sizes), generator=torch.Generator().manual_seed(1))


def partition(**more):
    """Clients of twelve examples each: eight to train, two for validation, two to test. The last sixty only."""
    owner = np.repeat(np.arange(CLIENTS), EACH)
    place = np.tile(np.arange(EACH), CLIENTS)
    parts = [np.flatnonzero(mine) for mine in (place < 8, (place >= 8) & (place < 10), place >= 10)]
    return Partition(*(Rows.from_assignment(owner[mine], CLIENTS, mine) for mine in parts), **more)


def opened(kind="image", seed=0, attributes=None, **more) -> Federation:
    return Opened(dataset(kind, attributes=attributes)).federation(partition(**more), seed)


@pytest.mark.parametrize("kind", ["image", "signal", "table", "tokens"])
def test_a_plain_partition_is_seen_as_it_is(kind):
    data, parts = dataset(kind), partition()
    found = Opened(data).federation(parts, 0)
    assert (found.train, found.validation, found.test) == parts.parts  # the very objects: nothing is copied
    assert found.unlabelled is found.stage is found.held_out is None
    assert found.slices == {}
    for examples, x, y in ((found.pool, data.train_x, data.train_y), (found.global_test, data.test_x, data.test_y)):
        assert examples.y.tolist() == y.tolist()
        mean, std = (np.reshape(v or [i], (-1, *[1] * (x.ndim - 2))) for i, v in enumerate((data.mean, data.std)))
        seen, expected = examples.batch(np.arange(len(y))).x, (x / (data.maximum or 1) - mean) / std
        np.testing.assert_allclose(seen.numpy(), expected, rtol=1e-5, atol=1e-5)
        assert seen.dtype == (torch.uint8 if kind == "tokens" else torch.float32)


def test_federations_share_what_is_not_transformed():
    once = Opened(dataset())
    first, second = (once.federation(partition(), seed) for seed in (0, 1))
    noisy = once.federation(partition(details={"observed": np.zeros(CLIENTS * EACH, np.int64)}), 0)
    assert first.pool is second.pool
    assert noisy.pool.x is first.pool.x
    assert noisy.global_test is first.global_test


def test_each_client_has_its_own_transformation_in_all_its_parts():
    strengths = {"noise": np.array([0, 1.0, 0, 0.5, 0]), "rotation": np.array([0, 0, 90.0, 0, 0])}
    plain, found = opened(seed=4), opened(seed=4, transforms=strengths)
    x, before = found.pool.x.numpy(), plain.pool.x.numpy()
    for part in ("train", "validation", "test"):
        rows = getattr(found, part)
        for same in (0, 4):
            assert np.array_equal(x[rows[same]], before[rows[same]])
        # black is -2 in normalised units, and 0 for the pixels that are turned; here no corner comes from outside
        np.testing.assert_allclose(x[rows[2]], np.rot90(before[rows[2]], axes=(2, 3)), atol=1e-4)
        for client, deviation in ((1, 1.0), (3, 0.5)):
            full = transforms.noise(before, np.full(len(before), deviation), 4)
            np.testing.assert_allclose(x[rows[client]], full[rows[client]], atol=1e-6)
    assert found.global_test.x.equal(plain.global_test.x)
    assert not opened(seed=5, transforms=strengths).pool.x.equal(found.pool.x)


def test_examples_of_nobody_stay_as_they_are():
    data = dataset(n=CLIENTS * EACH + 6)
    noisy = Opened(data).federation(partition(transforms={"noise": np.ones(CLIENTS)}), 0)
    plain = Opened(data).federation(partition(), 0)
    same = (noisy.pool.x == plain.pool.x).flatten(1).all(1)
    assert same.tolist() == [False] * (CLIENTS * EACH) + [True] * 6


def test_a_transformation_that_the_data_cannot_have():
    with pytest.raises(ConfigurationError, match=r"data set made-up: transformation 'rotation' .* this is 'table'"):
        opened("table", transforms={"rotation": np.ones(CLIENTS)})


@pytest.mark.parametrize("kind", ["image", "signal"])
def test_a_permuted_stream(kind):
    """Examples are seen as in their stage; the global test set as in each stage in turn."""
    stage = np.arange(CLIENTS * EACH) % 3
    more = {"details": {"stage": stage.astype(np.int32)}, "per_stage": ("permutation",)}
    plain, found = opened(kind, seed=2), opened(kind, seed=2, **more)
    for examples, before, seen in (
        (found.pool, plain.pool, stage),
        (found.global_test, plain.global_test, np.arange(24) % 3),
    ):
        assert np.array_equal(examples.x.numpy(), transforms.permutation(before.x.numpy(), seen, 2))
    assert {name: rows.tolist() for name, rows in found.slices.items()} == {
        f"stage_accuracy_{k}": list(range(k, 24, 3)) for k in range(3)
    }


def test_clients_learn_from_observed_labels_and_are_judged_by_true_ones():
    true = dataset().train_y
    found = opened(details={"observed": (true + 1) % CLASSES})
    for part, shift in (("train", 1), ("validation", 1), ("test", 0)):
        rows = joined(getattr(found, part))
        assert np.array_equal(found.pool.y[rows].numpy(), (true[rows] + shift) % CLASSES)
    assert found.global_test.y.tolist() == dataset().test_y.tolist()


def test_only_labelled_examples_are_learned_from():
    labelled = RNG(1).random(CLIENTS * EACH) < 0.5
    labelled[: 2 * EACH] = [False] * EACH + [True] * EACH  # client 0 knows no label, client 1 all of them
    parts, found = partition(), opened(details={"labelled": labelled})
    for client in range(CLIENTS):
        train, validation = parts.train[client], parts.validation[client]
        assert found.train[client].tolist() == train[labelled[train]].tolist()
        assert found.unlabelled[client].tolist() == train[~labelled[train]].tolist()
        assert found.validation[client].tolist() == validation[labelled[validation]].tolist()
        assert found.test[client].tolist() == parts.test[client].tolist()
    assert found.active.tolist() == [1, 2, 3, 4]
    pooled = found.pooled()
    assert pooled.train[0].tolist() == [i for i in joined(parts.train) if labelled[i]]
    assert pooled.unlabelled[0].tolist() == [i for i in joined(parts.train) if not labelled[i]]


def test_the_server_keeps_its_examples_for_methods_that_ask_for_them():
    assert opened().server is None
    assert opened(server=np.array([3, 7])).server.tolist() == [3, 7]
    assert opened(server=np.array([3, 7])).pooled().server.tolist() == [3, 7]


def test_nobody_knows_a_label():
    found = opened(details={"labelled": np.zeros(CLIENTS * EACH, bool)})
    for name in ("fedavg", "centralised"):
        with pytest.raises(RunError, match="no client can train: nobody has a labelled training example"):
            setting(build(name)[0], found, net())


def test_chosen_keeps_the_order():
    rows, wanted = Rows(np.array([0, 3, 3, 5]), np.array([4, 1, 3, 0, 2])), np.array([1, 1, 0, 0, 1], bool)
    assert [own.tolist() for own in chosen(rows, wanted)] == [[4, 1], [], [0]]
    assert [own.tolist() for own in chosen(list(rows), wanted)] == [[4, 1], [], [0]]


# stages -------------------------------------------------------------------------------------------------------------

STAGE = np.tile(np.repeat([0, 1, 2], 4), CLIENTS)  # of twelve examples four each; so training has 4, 4, 0


def stream(stage=STAGE, **more):
    return opened(details={"stage": np.asarray(stage, np.int32)}, **more)


def test_rounds_are_divided_equally():
    found = stream()
    for rounds in (3, 7, 9, 10):
        seen = [next(k for k, own in enumerate(found.stages) if own is found.at(r, rounds)) for r in range(rounds)]
        assert seen == [math.floor(r * 3 / rounds) for r in range(rounds)]
        assert max(np.bincount(seen)) - min(np.bincount(seen)) <= 1
    plain = opened()
    assert plain.at(5, 10) is plain
    assert plain.stages == (plain,)


def uneven():
    """A stream of three stages; client 1 has no examples in stage 0, and only client 1 has some in stage 2."""
    stage = np.tile([0, 0, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1], CLIENTS)
    stage[EACH : 2 * EACH] = [1, 1, 1, 1, 2, 2, 1, 2, 1, 2, 1, 2]
    return stream(stage), stage


def test_a_round_has_the_examples_of_its_stage_only():
    found, stage = uneven()
    assert [own.active.tolist() for own in found.stages] == [[0, 2, 3, 4], [0, 1, 2, 3, 4], [1]]
    s = setting(build("fedavg", lr=0.1)[0], found, net(), rounds=6, epochs=2, batch_size=3)
    seen = Watched()
    run(replace(s, executor=seen))
    for number, (cohort, batches) in enumerate(seen.rounds):
        assert cohort == found.stages[number // 2].active.tolist()
        for client, rows in zip(cohort, batches, strict=True):
            expected = [i for i in partition().train[client] if stage[i] == number // 2]
            assert sorted(rows) == sorted(2 * expected)
    judge = found.stages[0]
    assert (judge.validation, judge.test) == (found.validation, found.test)


class Watched(Loop):
    """The loop, which remembers each round's cohort and the examples of its batches."""

    def __init__(self):
        self.rounds = []

    def run(self, local, down, cohort):
        batches = [np.concatenate(batches_of(local, work)).tolist() for work in cohort]
        self.rounds.append(([work.client for work in cohort], batches))
        return super().run(local, down, cohort)


def test_weights_are_those_of_the_stage():
    """One exact step on quadratics: the server moves by the mean over the stage's numbers of examples."""
    problem = Quadratics.draw(3)
    stage = np.array([0, 0, 1, 0, 1, 1, 1, 1, 1])  # three examples each; in stage 0: 2, 1 and 0 of them
    federation = replace(problem.federation(), stage=stage)
    s = setting(build("fedavg", lr=0.1, weighting="weighted")[0], federation, rounds=2, epochs=1)
    state = begin(s)
    for count in (np.array([2, 1, 0]), np.array([1, 2, 3])):
        theta = state.server["theta"].numpy()
        deltas = 0.1 * problem.a * (problem.b - theta)
        losses = 0.5 * (problem.a * (theta - problem.b) ** 2).sum(1)
        state = advance(s, state)
        np.testing.assert_allclose(state.server["theta"].numpy(), theta + count @ deltas / count.sum(), rtol=1e-12)
        assert state.train_loss == pytest.approx(count @ losses / count.sum())


def test_the_population_is_that_of_the_whole_stream():
    """SCAFFOLD's server variate stays the mean of all clients' variates, whoever has examples now."""
    found, _ = uneven()
    s = setting(build("scaffold", lr=0.05)[0], found, net(torch.float64), rounds=6, batch_size=4)
    s = replace(s, federation=replace(found, pool=Examples(found.pool.x.double(), found.pool.y)))
    state = run(s)
    mean = torch.stack([state.client(i)["c"] for i in range(CLIENTS)]).mean(0)
    torch.testing.assert_close(state.server["c"], mean, atol=1e-12, rtol=0)
    assert mean.abs().max() > 1e-3


def test_the_cohort_is_a_share_of_those_who_have_examples_now():
    found, _ = uneven()
    half = ScheduleFile(title="half", participation=0.5)
    s = setting(build("fedavg", lr=0.1)[0], found, net(), rounds=9, batch_size=4, schedule=half)
    seen = Watched()
    run(replace(s, executor=seen))
    assert [len(cohort) for cohort, _ in seen.rounds] == [2] * 3 + [3] * 3 + [1] * 3
    for number, (cohort, _) in enumerate(seen.rounds):
        assert set(cohort) <= set(found.stages[number // 3].active)


def test_pooled_data_come_stage_by_stage_as_well():
    found, stage = uneven()
    s = setting(build("centralised", lr=0.1)[0], found, net(), rounds=3, epochs=1, batch_size=4)
    seen = Watched()
    run(replace(s, executor=seen))
    for number, (cohort, (rows,)) in enumerate(seen.rounds):
        assert cohort == [0]
        assert sorted(rows) == [i for i in joined(partition().train) if stage[i] == number]


def test_fewer_rounds_than_stages():
    found, _ = uneven()
    for name in ("fedavg", "centralised"):
        with pytest.raises(RunError, match="rounds: 2 rounds cannot be divided into the 3 stages"):
            setting(build(name)[0], found, rounds=2)


def test_a_stage_without_examples():
    with pytest.raises(RunError, match="no client can train in stage 2 of 3: nobody has a labelled training example"):
        setting(build("fedavg")[0], stream(), rounds=5)


def labelled_stream():
    """Everything at once: stages, missing labels, observed labels, in double precision."""
    _, stage = uneven()
    labelled = RNG(8).random(len(stage)) < 0.8
    observed = RNG(9).integers(0, CLASSES, len(stage))
    details = {"stage": stage.astype(np.int32), "labelled": labelled, "observed": observed}
    found = opened(details=details, transforms={"noise": np.linspace(0, 1, CLIENTS)})
    return replace(found, pool=Examples(found.pool.x.double(), found.pool.y))


@pytest.mark.parametrize("executor", [Vmap, lambda: Workers(2)], ids=["vmap", "workers"])
@pytest.mark.parametrize("case", [c for c in CASES if c.name in ("scaffold", "centralised", "local-only")], ids=str)
def test_executors_agree_on_a_stream(case, executor):
    algorithm, _ = case.build(lr=0.05)
    s = setting(algorithm, labelled_stream(), net(torch.float64), rounds=3, epochs=2, batch_size=3)
    expected = run(s)
    with closing(executor()) as other:
        found = run(replace(s, executor=other))
    for name, value in expected.server.items():
        torch.testing.assert_close(found.server[name], value, atol=1e-10, rtol=1e-10)
    assert found.clients.keys() == expected.clients.keys()
    assert found.train_loss == pytest.approx(expected.train_loss, rel=1e-10)


@pytest.mark.parametrize("stop", range(1, 6))
def test_a_stream_goes_on_from_a_checkpoint_with_the_same_bits(tmp_path, stop):
    s = setting(build("scaffold", lr=0.05)[0], labelled_stream(), net(torch.float64), rounds=6, epochs=2, batch_size=3)
    straight, half = run(s), begin(s)
    while half.round < stop:
        half = advance(s, half)
    checkpoint.save(tmp_path, half, {}, {})
    resumed = run(s, checkpoint.load(tmp_path)[0])
    assert all(torch.equal(resumed.server[name], value) for name, value in straight.server.items())
    assert all(torch.equal(resumed.client(i)["c"], straight.client(i)["c"]) for i in range(CLIENTS))


# held out clients, stages and domains in the evaluation -------------------------------------------------------------


def without(held):
    """The partition with clients that have test examples only."""
    whole = partition()
    owner = np.repeat(np.arange(CLIENTS), EACH)
    mine = np.flatnonzero(held[owner])
    none = [chosen(part, ~held[owner]) for part in (whole.train, whole.validation)]
    test = np.sort(np.concatenate([joined(chosen(whole.test, ~held[owner])), mine]))
    return Partition(*none, Rows.from_assignment(owner[test], CLIENTS, test), held_out=held)


HELD = np.array([False, True, False, False, True])


def judged(task, federation, theta):
    """What every evaluation measures of a model."""
    return measured(EvaluatedModel(EvaluationData(task, federation, 0), theta), (), ANY)


def accuracy(theta, task, x, y):
    """By a linear layer written out."""
    weight, bias = (part.numpy() for part in task.layout.split(theta).values())
    return (np.asarray(x).reshape(-1, 36) @ weight.T + bias).argmax(1) == np.asarray(y)


def test_clients_that_are_held_out_never_train_and_are_judged_apart():
    found = Opened(dataset()).federation(without(HELD), 0)
    assert found.active.tolist() == [0, 2, 3]
    s = setting(build("fedavg", lr=0.1)[0], found, net(), rounds=4, batch_size=4)
    seen = Watched()
    run(replace(s, executor=seen))
    assert {client for cohort, _ in seen.rounds for client in cohort} == {0, 2, 3}

    task, drawn = linear()
    theta, pool = drawn[0], found.pool
    right = [accuracy(theta, task, *pool.batch(np.array(rows))[:2]) for rows in found.test]
    assert [len(own) for own in right] == [2, 12, 2, 2, 12]
    metrics = judged(task, found, theta)
    apart = [right[1].mean(), right[4].mean()]
    assert metrics["held_out_accuracy"] == pytest.approx(np.concatenate([right[1], right[4]]).mean())
    assert metrics["held_out_accuracy_worst"] == pytest.approx(min(apart))
    assert apart[0] != apart[1]
    among = [right[i].mean() for i in (0, 2, 3)]
    assert metrics["client_accuracy_mean"] == pytest.approx(np.mean(among))
    assert metrics["client_accuracy_worst_decile"] == pytest.approx(min(among))
    validation = np.concatenate([accuracy(theta, task, *pool.batch(np.array(r))[:2]) for r in found.validation])
    assert len(validation) == 6
    assert evaluate(task, found, theta)["validation_accuracy"] == pytest.approx(validation.mean())


def test_personal_models_are_not_judged_on_clients_that_have_none():
    found = Opened(dataset(attributes={"site": "domain"})).federation(without(HELD), 0)
    task, drawn = linear()
    metrics = judged(task, found, drawn)
    assert math.isnan(metrics["held_out_accuracy"])
    assert math.isnan(metrics["held_out_accuracy_worst"])
    x, y = found.global_test.x.numpy(), found.global_test.y
    everywhere = np.stack([accuracy(drawn[i], task, x, y) for i in (0, 2, 3)])
    assert metrics["test_accuracy"] == pytest.approx(everywhere.mean())
    assert metrics["test_accuracy_site_usps"] == pytest.approx(everywhere[:, np.arange(24) // 2 % 2 == 1].mean())
    own = [accuracy(drawn[i], task, *found.pool.batch(np.array(found.test[i]))[:2]).mean() for i in (0, 2, 3)]
    assert metrics["client_accuracy_mean"] == pytest.approx(np.mean(own))


def test_held_out_accuracy_without_examples():
    held, sizes = np.array([False, True, True]), np.array([2, 0, 3])
    assert held_out(np.array([1, 1, 0, 1, 1]), sizes, held) == {
        "held_out_accuracy": pytest.approx(2 / 3),
        "held_out_accuracy_worst": pytest.approx(2 / 3),
    }
    nobody = held_out(np.array([1, 1]), np.array([2, 0, 0]), held)
    assert all(math.isnan(value) for value in nobody.values())


def test_no_metric_of_held_out_clients_where_there_are_none():
    task, drawn = linear()
    metrics = judged(task, opened(), drawn[0])
    assert {name for name in metrics if not name.startswith("client_")} == {"test_accuracy", "test_loss"}


def test_accuracy_by_the_classes_of_a_stage():
    """Classes 0 and 2 come first, then 1, then 3."""
    found = stream(np.array([0, 1, 0, 2])[np.arange(CLIENTS * EACH) % CLASSES])
    task, drawn = linear()
    x, y = found.global_test.x.numpy(), found.global_test.y.numpy()
    right, metrics = accuracy(drawn[0], task, x, y), judged(task, found, drawn[0])
    expected = [right[np.isin(y, classes)].mean() for classes in ([0, 2], [1], [3])]
    assert [metrics[f"stage_accuracy_{k}"] for k in range(3)] == pytest.approx(expected)
    assert len(set(expected)) == 3


def test_no_accuracy_by_stage_where_a_class_comes_in_several():
    stage = np.array([0, 0, 1, 1])[np.arange(CLIENTS * EACH) % CLASSES]
    stage[0] = 1
    assert stream(stage).slices == {}


def test_accuracy_by_domain():
    """Attributes of other uses, and values without a test example, have no metric."""
    found = opened(attributes={"site": "domain", "person": "client"})
    task, drawn = linear()
    right = accuracy(drawn[0], task, found.global_test.x.numpy(), found.global_test.y)
    site, metrics = np.arange(24) // 2 % 2, judged(task, found, drawn[0])
    assert {name: rows.tolist() for name, rows in found.slices.items()} == {
        "test_accuracy_site_north-pole": np.flatnonzero(site == 0).tolist(),
        "test_accuracy_site_usps": np.flatnonzero(site == 1).tolist(),
    }
    assert metrics["test_accuracy_site_usps"] == pytest.approx(right[site == 1].mean())


KINDS = {
    "signal": ModelFile(title="softmax", architecture="softmax"),
    "table": ModelFile(title="softmax", architecture="softmax"),
    "tokens": ModelFile(title="GRU", architecture="char_rnn", options={"cell": "gru", "layers": 1, "units": 5}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_data_that_are_no_images_are_trained_on_and_judged(kind):
    """Equal personal models are judged like the global one."""
    found, data = opened(kind), dataset(kind)
    task = Classification(lambda: models.build(KINDS[kind], data.shape, CLASSES, "test"))
    for name in ("fedavg", "centralised", "local-only"):
        s = setting(build(name, lr=0.1)[0], found, task, rounds=2, epochs=1, batch_size=4)
        theta = thetas(s, run(s), CLIENTS)
        assert np.isfinite(list(judged(task, found, theta).values())).all()
        one = theta if theta.dim() == 1 else theta[0]
        assert not torch.equal(one, task.init(0))
        same, whole = judged(task, found, one.expand(CLIENTS, -1)), judged(task, found, one)
        assert same == pytest.approx(whole, abs=1e-6)
        assert evaluate(task, found, one)["validation_loss"] == pytest.approx(
            evaluate(task, found, one.expand(CLIENTS, -1))["validation_loss"], rel=1e-5
        )


# the whole path: raw files, prepared, divided, trained, evaluated, in tables ------------------------------------------

READER = """
import numpy as np
from heterobench.config.strict import Strict

class Options(Strict):
    pass

def read(raw, options):
    with np.load(raw / "arrays.npz") as arrays:
        return dict(arrays)
"""

PARTITIONS = {
    "skewed": {
        "scheme": "domain",
        "options": {"key": "site", "clients_per_domain": 3},
        "changes": [
            {"change": "feature-noise", "options": {"sigma": 0.5}},
            {"change": "rotation", "options": {"values": [0, 15, -15]}},
            {"change": "noisy-labels", "options": {"rate": 0.2}},
            {"change": "limited-labels", "options": {"share": 0.5, "stratified": True}},
            {"change": "held-out-clients", "options": {"clients": [5]}},
        ],
    },
    "stream": {
        "scheme": "iid",
        "clients": 4,
        "changes": [{"change": "class-incremental", "options": {"tasks": 2, "order": "label"}}],
    },
    "permuted": {
        "scheme": "iid",
        "clients": 4,
        "changes": [{"change": "permuted-tasks", "options": {"tasks": 3}}],
    },
    "by-person": {"scheme": "natural-key", "options": {"key": "person"}},
}
BENCHMARK = {
    "title": "What clients see",
    "presets": {
        "mini": {
            "seeds": 2,
            "scenarios": [
                {"dataset": "made-images", "model": "softmax", "partition": ["skewed", "stream", "permuted"]},
                {"dataset": "made-table", "model": "softmax", "partition": "by-person"},
            ],
            "budget": {"rounds": 6, "local_epochs": 2, "batch_size": 8},
            "hyperparameters": {"lr": 0.2},
            "algorithms": ["fedavg", "centralised", "local-only"],
        }
    },
}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    YAML().dump(content, path)


def made(project, mirror, name, kind, shape, **more):
    """A set of three classes whose pixels or columns tell the class, from seven persons at two sites."""
    rng, arrays = RNG(11), {"names_site": np.array(["usps", "Mnist"]), "names_person": np.array(list("tuvwxyz"))}
    for split, n in (("train", 300), ("test", 90)):
        y = rng.permutation(n) % 3
        place = (np.arange(math.prod(shape)) % 3 == y[:, None]).reshape(n, *shape)
        x = (
            40 + 150 * place + rng.integers(0, 60, place.shape)
            if kind == "image"
            else place + 0.4 * rng.normal(size=place.shape)
        )
        arrays |= {f"{split}_x": x.astype(np.uint8 if kind == "image" else np.float32), f"{split}_y": y}
        arrays |= {f"{split}_site": np.arange(n) % 2, f"{split}_person": rng.integers(-1, 7, n)}
    mirror.mkdir(parents=True, exist_ok=True)
    path = mirror / f"{name}.npz"
    np.savez(path, **arrays)
    download = {"path": "arrays.npz", "sha256": file_digest(path), "bytes": path.stat().st_size}
    entries = {
        "title": name,
        "licence": "none",
        "canonical": "nowhere",
        "kind": kind,
        "classes": ["a", "b", "c"],
        "shape": list(shape),
        "attributes": {
            "site": {"about": "where it is from", "use": "domain"},
            "person": {"about": "who it is from", "use": "client"},
        },
        "reader": "made-up",
        "forms": [{"name": "published", "downloads": [download | {"sources": [{"mirror": path.name}]}]}],
    }
    write(project.params / "datasets" / f"{name}.yaml", entries | more)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The repository's models, algorithms and schedules; partitions and two data sets of its own, obtained, drawn."""
    root = tmp_path_factory.mktemp("seen")
    project, mirror = Project(root / "project"), root / "mirror"
    for kind in ("models", "algorithms", "schedules", "datasets"):  # published numbers name data sets
        shutil.copytree(REPOSITORY / "params" / kind, project.params / kind)
    write(project.params / "config.yaml", {"benchmarks": ["seen"], "device": "cpu"})
    write(project.params / "benchmarks" / "seen.yaml", BENCHMARK)
    for name, file in PARTITIONS.items():
        write(project.params / "partitions" / f"{name}.yaml", {"title": name} | file)
    made(project, mirror, "made-images", "image", (1, 6, 6), maximum=255, mean=[0.5], std=[0.3])
    made(project, mirror, "made-table", "table", (9,))
    (root / "readers").mkdir()
    (root / "readers" / "made_up.py").write_text(READER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "__path__", [*readers.__path__, str(root / "readers")])
        patch.setenv(MIRROR, str(mirror))
        for name in ("made-images", "made-table"):
            fetch(project, name)
            prepare(project, name)
    for name in PARTITIONS:
        draw_partitions(project, "made-table" if name == "by-person" else "made-images", name, [0, 1])
    return project


@pytest.fixture(scope="module")
def evaluation(project):
    """scenario -> its evaluation and curves; and the tables of the benchmark."""
    benchmark = resolve.benchmark(project, "seen", "mini")
    for job in benchmark.jobs():
        run_job(job, benchmark.seeds, resolve.config(project))
    found = {s.partition: evaluate_scenario(benchmark, s.name) for s in benchmark.scenarios}
    whole, ledger = (
        pd.concat([getattr(each, name) for each in found.values()], ignore_index=True)
        for name in ("evaluation", "ledger")
    )
    curves, outcomes = (
        {s.name: getattr(found[s.partition], name) for s in benchmark.scenarios} for name in ("curves", "outcomes")
    )
    data = ReportData(benchmark, whole, curves, ledger, outcomes, {})
    return found | {"tables": [table for section in sections.ORDER for table in sections.tables(section, data)]}


def last(evaluation, scenario, arm, metric):
    rows = evaluation[scenario].evaluation
    chosen = rows[(rows.arm == arm) & (rows.metric == metric) & (rows.selection == "last")]
    return chosen.sort_values("seed").value.to_numpy()


ALWAYS = ["round", "test_accuracy", "test_loss", "validation_accuracy"]
DOMAINS = ["test_accuracy_site_mnist", "test_accuracy_site_usps"]


@pytest.mark.parametrize(
    ("scenario", "more"),
    [
        ("skewed", ["held_out_accuracy", "held_out_accuracy_worst"]),
        ("stream", ["stage_accuracy_0", "stage_accuracy_1"]),
        ("permuted", ["stage_accuracy_0", "stage_accuracy_1", "stage_accuracy_2"]),
        ("by-person", []),
    ],
)
def test_metrics_of_a_scenario(evaluation, scenario, more):
    rows, curves, ledger, _ = evaluation[scenario]
    assert (ledger.status == "finished").all()
    assert (ledger.error == "").all()
    for selection in ("last", "validation"):
        for arm in ("fedavg", "local-only"):
            found = rows[(rows.selection == selection) & (rows.arm == arm) & (rows.seed == 1)].metric
            assert sorted(m for m in found if not m.startswith("client_")) == sorted(ALWAYS + DOMAINS + more)
            assert {"client_accuracy_mean", "client_accuracy_worst_decile", "client_loss_max"} < set(found)
    assert list(dict.fromkeys(zip(rows.arm, rows.seed, strict=True))) == [
        (arm, seed) for arm in ("fedavg", "centralised", "local-only") for seed in (0, 1)
    ]
    assert set(curves.metric) >= {*(f"{s}_{m}" for s in ("test", "validation") for m in ("accuracy", "loss"))} | {
        "train_loss",
        "bytes_up",
        "bytes_down",
    }


@pytest.mark.parametrize(("scenario", "shares"), [("stream", (60, 30)), ("permuted", (30, 30, 30))])
def test_stages_make_up_the_global_test_set(evaluation, scenario, shares):
    """Of the 90 test examples, 30 are of each class."""
    for arm in ("fedavg", "local-only"):
        parts = [share * last(evaluation, scenario, arm, f"stage_accuracy_{k}") for k, share in enumerate(shares)]
        np.testing.assert_allclose(last(evaluation, scenario, arm, "test_accuracy"), sum(parts) / 90)


def test_held_out_accuracy_is_that_of_a_global_model(evaluation):
    for metric in ("held_out_accuracy", "held_out_accuracy_worst"):
        assert np.isfinite(last(evaluation, "skewed", "fedavg", metric)).all()
        assert np.isfinite(last(evaluation, "skewed", "centralised", metric)).all()
        assert np.isnan(last(evaluation, "skewed", "local-only", metric)).all()


def test_a_table_and_its_natural_clients(project, evaluation):
    """Persons are clients, those of unknown person nobody's; a model of a linear problem learns it."""
    partition, _ = open_partition(project, "made-table", "by-person", 0)
    data = open_dataset(project, "made-table")
    assert partition.clients == 7
    for client, rows in enumerate(zip(*partition.parts, strict=True)):
        assert sorted(np.concatenate(rows)) == np.flatnonzero(data.train["person"] == client).tolist()
    assert (last(evaluation, "by-person", "fedavg", "test_accuracy") > 0.9).all()


def test_tables_show_only_metrics_that_they_know(evaluation):
    titles = {column.title for table in evaluation["tables"] for column in table.columns}
    assert titles
    assert not [title for title in titles if "site" in title or "stage" in title or "held" in title]


def test_records_say_how_inputs_are_seen(project):
    folder = project.run("seen", "mini", "made-table.by-person.softmax.full", "fedavg", 0)
    inputs = Record(folder).config["configuration"]["inputs"]
    data = open_dataset(project, "made-table")
    assert inputs == {"form": "published", "kind": "table", "maximum": None} | {
        "mean": list(data.mean),
        "std": list(data.std),
    }
    assert len(data.mean) == 9


def test_too_few_rounds_are_told(project):
    benchmark = resolve.benchmark(project, "seen", "mini")
    job = benchmark.job("made-images.permuted.softmax.full", "fedavg")
    short = replace(job.scenario, budget=job.scenario.budget.model_copy(update={"rounds": 2}))
    with pytest.raises(RunError, match="2 rounds cannot be divided into the 3 stages"):
        run_job(replace(job, scenario=short, benchmark="short"), [0], resolve.config(project))
