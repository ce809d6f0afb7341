"""From a file under ``params/`` to a checked object."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from heterobench.config.names import RESERVED, name_problem
from heterobench.config.strict import Model, build, nearest
from heterobench.errors import ConfigurationError
from heterobench.project import Project

KINDS = ("algorithms", "benchmarks", "datasets", "models", "partitions", "schedules")
DEEPEST = 500  # levels of values inside values
LARGEST = 100_000  # values in a parameter file; aliases of aliases make billions of a few lines


def read_yaml(path: Path) -> Any:
    """YAML 1.2 (so ``1e-3`` is a number and ``no`` is a word); a key given twice is an error."""
    if (path := Path(path)).exists() and not (path.is_file() or path.is_dir()):
        raise ConfigurationError(f"{path}: cannot be read: neither a file nor a link to one")  # a pipe would wait
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not text in UTF-8: byte {error.start + 1} cannot be decoded") from None
    except OSError as error:  # a folder, or closed to this user
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text that stands in `where`: a file, an option, an environment variable."""
    if _deep(text):
        raise ConfigurationError(f"{where}: values inside values: allowed are {DEEPEST} levels")
    try:
        value = YAML(typ="safe").load(text)
        size = _expanded(value, {})
    except (YAMLError, ValueError, RecursionError) as error:  # ValueError: 2026-99-99 is a date that is none
        raise ConfigurationError(f"{where}: not valid YAML: {error}") from None
    if size > LARGEST:
        how_many = f"{size:,}" if size < math.inf else "endlessly many"
        raise ConfigurationError(f"{where}: {how_many} values, aliases written out: allowed are {LARGEST:,}")
    return value


def _deep(text: str) -> bool:
    """Whether a YAML text is nested deeper than any setting is; its parser in C would end this process for that."""
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return (
        deepest > DEEPEST or re.search(rf"^(?: {{{DEEPEST}}}|(?:[-?] ){{{DEEPEST}}})", text, re.MULTILINE) is not None
    )


def _expanded(value: Any, counted: dict[int, float]) -> float:
    """How many values there are with every alias written out, each counted once; infinity where one holds itself."""
    if not isinstance(value, (dict, list, tuple, set)):
        return 1
    if id(value) not in counted:
        counted[id(value)] = math.inf
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        counted[id(value)] = 1 + sum(_expanded(part, counted) for part in parts)
    return counted[id(value)]


def names(project: Project, kind: str) -> list[str]:
    """Names of all things of one kind: the files under ``params/<kind>/``, hidden ones (of editors) aside.

    Raises ConfigurationError for a file whose name cannot be the name of a thing.
    """
    found = sorted(path.stem for path in (project.params / kind).glob("*.yaml") if not path.name.startswith("."))
    for name in found:
        problem = name_problem(name)
        if kind == "benchmarks" and name in RESERVED:
            problem = f"results/{name} is something else: allowed is any name but {', '.join(RESERVED)}"
        if problem:
            raise ConfigurationError(f"params/{kind}: file {name + '.yaml'!r}: {problem}. What to do: rename the file")
    return found


def check_name(project: Project, kind: str, name: str, where: str) -> None:
    if problem := name_problem(name):
        raise ConfigurationError(f"{where}: {problem}")
    if name not in (known := names(project, kind)):
        raise ConfigurationError(f"{where}: no file params/{kind}/{name}.yaml{nearest(name, known)}")


def shown(project: Project, path: Path) -> str:
    """`path` as a user writes it, relative to the project."""
    return str(path.relative_to(project.root)) if path.is_relative_to(project.root) else str(path)


def load(project: Project, kind: str, name: str, model: type[Model], where: str | None = None) -> Model:
    """The thing called `name`; `where` says who asked for it, for the error when there is no such file."""
    check_name(project, kind, name, where or "command line")
    path = project.params / kind / f"{name}.yaml"
    return build(model, read_yaml(path), shown(project, path))
