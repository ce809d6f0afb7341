"""Which round is selected, that the selected model is the one of that round, and that the test set has no say."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256

import numpy as np
import pytest

from heterobench import resolve, training
from heterobench.commands.single import draw_partitions
from heterobench.project import Project
from recomputed import raw
from recomputed.project import CREDITS, DIGITS, EVALUATED, NAME, PRESET
from recomputed.raw import GLOBAL, PERSONAL, RUNS, Key

pytestmark = pytest.mark.xdist_group("recomputed")
RUN = Key(DIGITS, "fedavg", 1)  # its best round on validation data is neither the first, nor the last, nor on test data


def best(rows, name):
    """(round, how often its value occurs) of the first highest value."""
    values = [row[name] for row in rows]
    return rows[values.index(max(values))]["round"], values.count(max(values))


def test_the_selected_round_is_the_first_of_the_highest_validation_accuracy(left):
    seen = set()
    for key in RUNS:
        rows = left.rounds(key)
        assert [row["round"] for row in rows] == list(EVALUATED[key.scenario])
        round, equals = best(rows, "validation_accuracy")
        assert left.end(key)["selected_round"] == round, key
        seen |= {"tie"} if equals > 1 else set()
        seen |= {"not the last"} if round != rows[-1]["round"] else set()
        seen |= {"not the first"} if round != rows[0]["round"] else set()
        if key in GLOBAL and best(rows, "test_accuracy")[0] != round:
            seen.add("not on test data")
    assert seen == {"tie", "not the last", "not the first", "not on test data"}  # else these runs would show nothing


def test_scores_of_a_round_are_those_of_the_model_of_that_round(left):
    for key in GLOBAL:
        data, parts = left.data(key.scenario), left.parts(key.scenario, key.seed)
        joined = np.concatenate(parts["validation"])
        for row in left.rounds(key):
            model = left.at_round(key, row["round"])
            for part, x, y in (("validation", data.x[joined], data.y[joined]), ("test", data.test_x, data.test_y)):
                outputs = raw.logits(model, x)
                assert row[f"{part}_accuracy"] == pytest.approx(raw.hits(outputs, y).mean(), abs=1e-12), key
                assert row[f"{part}_loss"] == pytest.approx(raw.losses(outputs, y).mean(), rel=1e-5), key


def test_saved_models_are_those_of_the_selected_and_of_the_last_round(left):
    for key in GLOBAL:
        selected, last = left.end(key)["selected_round"], EVALUATED[key.scenario][-1]
        for name, round in (("selected.safetensors", selected), ("final.safetensors", last)):
            for found, expected in zip(left.model(key, name), left.at_round(key, round), strict=True):
                assert np.array_equal(found, expected), (key, name)


def test_saved_personal_models_have_the_scores_of_the_selected_and_of_the_last_round(left):
    """Each client's validation examples under its own model."""
    for key in RUNS:
        if key.arm != PERSONAL:
            continue
        data, rows = left.data(key.scenario), left.parts(key.scenario, key.seed)["validation"]
        by_round = {row["round"]: row for row in left.rounds(key)}
        ends = {"selected.safetensors": left.end(key)["selected_round"], "final.safetensors": max(by_round)}
        for name, round in ends.items():
            model = left.model(key, name)
            for score, of in (("accuracy", raw.hits), ("loss", raw.losses)):
                mean = np.concatenate(raw.of_clients(model, data.x, data.y, rows, of)).mean()
                assert by_round[round][f"validation_{score}"] == pytest.approx(mean, rel=1e-5, abs=1e-12), (key, name)


# runs of their own


@pytest.fixture
def copy(benchmark, tmp_path):
    """The project without its runs, to train in."""
    ignored = shutil.ignore_patterns("runs", "evaluation", "curves", "ledger", "outcomes")
    shutil.copytree(benchmark.project.root, tmp_path / "copy", ignore=ignored)
    return Project(tmp_path / "copy")


def trained(project: Project, key: Key, until=()) -> raw.Left:
    """One run of the benchmark, left after the rounds `until` and taken up again."""
    job, config = resolve.benchmark(project, NAME, PRESET).job(key.scenario, key.arm), resolve.config(project)
    with training.workplace(job, config) as place:
        for stop in (*until, None):
            training.run(job, key.seed, config, *place, stop)
    return raw.Left(project.root)


def test_the_test_set_has_no_say(left, copy):
    """The same run with the test labels of other examples: other test scores, and not a bit else."""
    folder = copy.prepared("digits")
    labels = np.load(folder / "test_y.npy")
    np.save(folder / "test_y.npy", np.roll(labels, 100))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["test_y.npy"]["sha256"] = sha256((folder / "test_y.npy").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    found = trained(copy, RUN)
    assert left.end(RUN)["selected_round"] == found.end(RUN)["selected_round"]
    for name in ("selected.safetensors", "final.safetensors"):
        for one, other in zip(left.model(RUN, name), found.model(RUN, name), strict=True):
            assert np.array_equal(one, other)
    for one, other in zip(left.rounds(RUN), found.rounds(RUN), strict=True):
        assert one.pop("test_accuracy") != other.pop("test_accuracy")
        assert one.pop("test_loss") != other.pop("test_loss")
        assert one == other


def test_without_validation_examples_the_last_round_is_selected(copy):
    file = copy.params / "partitions/skewed.yaml"
    file.write_text(file.read_text().replace("validation: 0.1", "validation: 0"))
    draw_partitions(copy, "digits", "skewed", [RUN.seed])
    found = trained(copy, RUN)
    assert {row["validation_accuracy"] for row in found.rounds(RUN)} == {"NaN"}
    assert found.end(RUN)["selected_round"] == EVALUATED[DIGITS][-1]
    for one, other in zip(found.model(RUN, "selected.safetensors"), found.model(RUN, "final.safetensors"), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("key", [RUN, Key(CREDITS, PERSONAL, 0)], ids=lambda key: key.arm)
def test_a_run_that_was_left_and_taken_up_again_selects_what_the_straight_one_does(left, copy, key):
    """Left after its best round, so that the selection must come back with it."""
    round = left.end(key)["selected_round"]
    assert round < EVALUATED[key.scenario][-1]
    found = trained(copy, key, until=(2, round, round + 1))
    assert (found.folder(key) / "rounds.jsonl").read_bytes() == (left.folder(key) / "rounds.jsonl").read_bytes()
    assert found.end(key)["selected_round"] == round
    for name in ("selected.safetensors", "final.safetensors"):
        assert (found.folder(key) / name).read_bytes() == (left.folder(key) / name).read_bytes()
