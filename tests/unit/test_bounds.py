"""Every number that a user writes has a range, in files and on the command line, and nothing else passes for one."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import pkgutil
import re
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError

import heterobench
from heterobench import cli, resolve
from heterobench.config.strict import Strict
from heterobench.errors import ConfigurationError
from heterobench.project import Project

ROOT = Path(__file__).parents[2]


def models() -> list[type[Strict]]:
    """Every class of the package that reads parameters, whichever module it is in."""
    for module in pkgutil.walk_packages(heterobench.__path__, "heterobench."):
        importlib.import_module(module.name)
    found, todo = {}, [Strict]
    while todo:
        for kind in todo.pop().__subclasses__():
            if kind.__module__.startswith("heterobench"):
                found[f"{kind.__module__}.{kind.__qualname__}"] = kind
            todo.append(kind)
    return [found[name] for name in sorted(found)]


MODELS = models()
FIELDS = {
    f"{model.__module__.removeprefix('heterobench.')}.{model.__qualname__}.{name}": (model, name)
    for model in MODELS
    for name in model.model_fields
}


def numbers(schema: dict, listed: bool = False) -> list[tuple[dict, bool]]:
    """The places of a JSON schema that take a number, and whether in a list; choices and nested models aside."""
    found = []
    if schema.get("type") in ("integer", "number") and not {"const", "enum"} & set(schema):
        found.append((schema, listed))
    for part in schema.get("anyOf", ()):
        found += numbers(part, listed)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found += numbers(schema[key], listed=True)
    return found


@cache
def schema(model: type[Strict]) -> dict:
    return model.model_json_schema()["properties"]


NUMERIC = [key for key, (model, name) in FIELDS.items() if numbers(schema(model)[name])]
CHOICES = [key for key, (model, name) in FIELDS.items() if type(schema(model)[name].get("const")) is int]


def taken(key: str, values: list) -> list:
    """Those of the values that the field takes, in the way in which its class reads it."""
    model, name = FIELDS[key]
    field = model.model_fields[name]
    config = ConfigDict(strict=model.model_config.get("strict"), allow_inf_nan=model.model_config["allow_inf_nan"])
    adapter, found = TypeAdapter(Annotated[field.annotation, *(field.metadata or [None])], config=config), []
    for value in values:
        with suppress(ValidationError):
            adapter.validate_python(value)
            found.append(value)
    return found


def test_the_walk_finds_what_is_known_to_be_there():
    """Else the test below would pass over what it is for."""
    for part in ("config.schema.Budget.rounds", "config.schema.Preset.seeds", "algorithms._local_sgd.LocalSGD.lr"):
        assert part in NUMERIC
    for part in (
        "models.mlp.Options.hidden",
        "data.schema.Output.bytes",
        "partition.changes.features.Strengths.values",
    ):
        assert part in NUMERIC
    assert "algorithms.feddyn.HyperParameters.momentum" in CHOICES
    assert len(NUMERIC) > 150


@pytest.mark.parametrize("key", NUMERIC)
def test_a_number_has_two_ends_and_nothing_else_passes_for_one(key):
    model, name = FIELDS[key]
    places = numbers(schema(model)[name])
    none = [True, False, "1", "0.5", math.nan, math.inf, -math.inf, 10**400, 1e30, -1e30]
    none += [1.0, 2.5] if all(place["type"] == "integer" for place, _ in places) else []
    assert taken(key, [*none, *([value] for value in none)]) == []
    for place, listed in places:
        low, high = (place.get(f"{end}imum", place.get(f"exclusive{end.title()}imum")) for end in ("min", "max"))
        assert low is not None, place
        assert high is not None, place
        assert -1e20 <= low < high <= 1e20
        if place["type"] == "integer":
            step = place.get("multipleOf", 1)
            inside, outside = [low, high], [low - step, high + step]
        else:
            below, above = math.nextafter(low, -math.inf), math.nextafter(high, math.inf)
            inside = [low if "minimum" in place else math.nextafter(low, math.inf)]
            inside += [high if "maximum" in place else math.nextafter(high, -math.inf)]
            outside = [below if "minimum" in place else low, above if "maximum" in place else high]
        inside, outside = ([[value] if listed else value for value in values] for values in (inside, outside))
        assert taken(key, [*inside, *outside]) == inside


@pytest.mark.parametrize("key", CHOICES)
def test_a_choice_of_one_number_is_that_number(key):
    model, name = FIELDS[key]
    only = schema(model)[name]["const"]
    found = taken(key, [only, float(only), bool(only), str(only), only + 1])
    assert [(type(value), value) for value in found] == [(int, only), (float, only)]


def test_whole_numbers_of_the_command_line_have_ranges():
    (commands,) = (a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    given = {(name, action.dest): action for name, sub in commands.choices.items() for action in sub._actions}
    assert not [key for key, action in given.items() if action.type in (int, float)]
    for key in (("run", "seed"), ("train", "seeds"), ("run", "rounds"), ("ui", "port"), ("picture", "seed")):
        for text in ("-1", "1e3", "true", "1.0", "99999999999999999999999", "nan", ""):
            with pytest.raises(argparse.ArgumentTypeError, match="found"):
                given[key].type(text)
        assert given[key].type("7") == 7


# through the files, as the Snakefile reads them ---------------------------------------------------------------------

TABLE = """
title: A table
presets:
  small:
    seeds: 2
    scenarios: [{dataset: digits, model: mlp, partition: iid}]
    budget: {rounds: 3, batch_size: 16}
    hyperparameters: {lr: 0.1}
    algorithms: [fedavg]
"""
WRONG = {
    "seeds": ("benchmarks/table.yaml", "seeds: 2", "seeds: 1000000000", "presets.small.seeds", "1000000000"),
    "a seed": (
        "benchmarks/table.yaml",
        "seeds: 2",
        "seeds: [9223372036854775808]",
        "presets.small.seeds",
        "9223372036854775808",
    ),
    "true for a seed": ("benchmarks/table.yaml", "seeds: 2", "seeds: true", "presets.small.seeds", "True"),
    "trials": (
        "benchmarks/table.yaml",
        "seeds: 2",
        "seeds: 2\n    tuning: {trials: 1000000000, seeds: [7]}",
        "presets.small.tuning.trials",
        "1000000000",
    ),
    "step size": ("benchmarks/table.yaml", "lr: 0.1", "lr: 1e30", "lr: ", "1e\\+30"),
    "step size of true": ("benchmarks/table.yaml", "lr: 0.1", "lr: true", "lr: ", "True"),
    "step size as a text": ("benchmarks/table.yaml", "lr: 0.1", "lr: '0.1'", "lr: ", "0.1"),
    "rounds with a point": ("benchmarks/table.yaml", "rounds: 3", "rounds: 3.0", "budget: rounds", "3.0"),
    "rounds": ("benchmarks/table.yaml", "rounds: 3", "rounds: 2000000", "budget: rounds", "2000000"),
    "threads": ("config.yaml", "threads: 1", "threads: 100000", "threads", "100000"),
    "threads: true": ("config.yaml", "threads: 1", "threads: true", "threads", "True"),
    "width": ("models/mlp.yaml", "hidden: [64]", "hidden: [1000000000000]", "options: hidden.0", "1000000000000"),
    "concentration": ("partitions/iid.yaml", "validation: 0.1", "validation: true", "validation", "True"),
    "clients": ("partitions/iid.yaml", "clients: 10", "clients: 1000000000", "clients", "1000000000"),
    "shape": ("datasets/digits.yaml", "shape: [1, 8, 8]", "shape: [1, 8, 8000000]", "shape.2", "8000000"),
    "maximum": ("datasets/digits.yaml", "maximum: 16", "maximum: 256", "maximum", "256"),
    "participation": ("schedules/full.yaml", "1.0", "true", "participation", "True"),
    "a default": ("algorithms/fedprox.yaml", "mu: 0.01", "mu: 1e30", "defaults: mu", "1e\\+30"),
}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    root = tmp_path_factory.mktemp("bounds")
    shutil.copytree(ROOT / "params", root / "params")
    (root / "params/benchmarks/table.yaml").write_text(TABLE)
    return Project(root)


def read(project):
    resolve.config(project)
    resolve.benchmark(project, "table", "small")


@pytest.mark.parametrize("what", WRONG)
def test_a_number_out_of_range_is_told_with_file_key_and_value(shipped, what):
    file, old, new, key, value = WRONG[what]
    path = shipped.params / file
    text = path.read_text()
    assert old in text
    try:
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ConfigurationError) as error:
            read(shipped)
    finally:
        path.write_text(text)
    assert file in str(error.value) or f"params/{file}" in str(error.value)
    assert key in str(error.value)
    assert re.search(rf"found .*{value}", str(error.value))


def test_overrides_of_the_workflow_have_the_same_ranges(shipped, monkeypatch):
    for value in (True, "2", 100_000, 1.0):
        monkeypatch.setenv(resolve.OVERRIDES, json.dumps({"threads": value}))
        with pytest.raises(ConfigurationError, match=r"threads: .*found"):
            resolve.config(shipped)
