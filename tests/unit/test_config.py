"""Parameter files: what ships resolves; a mistake is an error that names file, key, value and what is allowed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from heterobench import registry, resolve
from heterobench.config.reading import load, names, read_yaml
from heterobench.config.schema import BenchmarkFile, ModelFile, Preset, ScheduleFile
from heterobench.config.strict import Strict, build, nearest
from heterobench.errors import ConfigurationError
from heterobench.project import Project

REPOSITORY = Project(Path(__file__).parents[2])
SHIPPED = [
    (name, preset)
    for name in names(REPOSITORY, "benchmarks")
    for preset in load(REPOSITORY, "benchmarks", name, BenchmarkFile).presets
]

TABLE = """
title: A table
presets:
  small:
    seeds: 2
    scenarios:
      - {dataset: digits, model: mlp, partition: [iid, dirichlet-0.1]}
    budget: {rounds: 3, local_epochs: 2, batch_size: 16}
    hyperparameters: {lr: 0.1}
    algorithms: [fedavg, fedprox, fedadam]
"""
FILE = "benchmarks/table.yaml"


@pytest.fixture
def project(tmp_path):
    """The shipped parameter files in a project of their own, with one small table."""
    shutil.copytree(REPOSITORY.params, tmp_path / "params")
    (tmp_path / "params" / FILE).write_text(TABLE)
    return Project(tmp_path)


def edit(project, file, old, new):
    path = project.params / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def table(project):
    return resolve.benchmark(project, "table", "small")


def message(project, call=table) -> str:
    with pytest.raises(ConfigurationError) as error:
        call(project)
    return str(error.value)


# what ships ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "preset"), SHIPPED)
def test_every_shipped_table_resolves(name, preset):
    found = resolve.benchmark(REPOSITORY, name, preset)
    assert len(found.jobs()) == len(found.scenarios) * len(found.arms) > 0
    assert found.seeds == tuple(range(len(found.seeds)))
    for job in found.jobs():
        json.dumps(job.configuration(), allow_nan=False)


def test_shipped_config_names_shipped_tables():
    config = resolve.config(REPOSITORY)
    assert all((name, config.preset) in SHIPPED for name in config.benchmarks)


def test_every_algorithm_has_a_file_and_every_file_an_algorithm():
    assert names(REPOSITORY, "algorithms") == registry.algorithms()


def test_resolving_imports_neither_torch_nor_mlflow():
    """The Snakefile resolves every table before anything is computed."""
    code = (
        "import sys; from pathlib import Path; from heterobench import resolve; "
        "from heterobench.project import Project; project = Project(Path(sys.argv[1])); resolve.config(project)\n"
        "for pair in sys.argv[2:]: resolve.benchmark(project, *pair.split('/')).jobs()[0].configuration()\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'mlflow', 'snakemake', 'pandas'}))"
    )
    pairs = ["/".join(pair) for pair in SHIPPED]
    command = [sys.executable, "-c", code, str(REPOSITORY.root), *pairs]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# a table ------------------------------------------------------------------------------------------------------------


def test_a_table_is_scenarios_by_arms_by_seeds(project):
    found = table(project)
    assert [s.name for s in found.scenarios] == ["digits.iid.mlp.full", "digits.dirichlet-0.1.mlp.full"]
    assert [(a.name, a.algorithm, a.title) for a in found.arms] == [
        ("fedavg", "fedavg", "FedAvg"),
        ("fedprox", "fedprox", "FedProx"),
        ("fedadam", "fedopt", "FedAdam"),
    ]
    assert found.seeds == (0, 1)
    assert len(found.jobs()) == 6


def test_settings_come_from_file_variant_entry_and_table(project):
    """File and variant defaults give way to what the table shares, and that to what the entry itself says."""
    edit(
        project,
        FILE,
        "fedprox,",
        "{algorithm: fedprox, name: fedprox-1, title: mine, hyperparameters: {mu: 1, lr: 0.3}},",
    )
    edit(project, FILE, "{lr: 0.1}", "{lr: 0.2, mu: 5, beta1: 0.5}")
    hp = {arm: table(project).job("digits.iid.mlp.full", arm).hyperparameters for arm in ("fedprox-1", "fedadam")}
    assert (hp["fedprox-1"].mu, hp["fedprox-1"].lr) == (1, 0.3)
    assert (hp["fedadam"].beta1, hp["fedadam"].lr, hp["fedadam"].optimizer) == (0.5, 0.2, "adam")
    assert table(project).job("digits.iid.mlp.full", "fedprox-1").arm.title == "mine"


def test_a_scenario_may_override_budget_hyperparameters_and_target(project):
    own = "partition: iid, budget: {rounds: 9}, hyperparameters: {lr: 0.7}, target: 0.5}"
    edit(project, FILE, "partition: [iid, dirichlet-0.1]}", own)
    (scenario,) = table(project).scenarios
    assert (scenario.budget.rounds, scenario.budget.batch_size, scenario.target) == (9, 16, 0.5)
    assert table(project).job(scenario.name, "fedavg").hyperparameters.lr == 0.7


@pytest.mark.parametrize(("given", "seeds"), [("3", (0, 1, 2)), ("[7, 3, 11]", (7, 3, 11)), ("[0]", (0,))])
def test_seeds_are_a_count_or_a_list(project, given, seeds):
    edit(project, FILE, "seeds: 2", f"seeds: {given}")
    assert table(project).seeds == seeds


@pytest.mark.parametrize("given", ["0", "-2", "[]", "[1, 2, 1]", "[-1]", "many", "1.5", "[a]"])
def test_wrong_seeds_are_errors(project, given):
    edit(project, FILE, "seeds: 2", f"seeds: {given}")
    assert message(project).startswith("params/benchmarks/table.yaml: presets.small.seeds")


def test_numbers_are_yaml_1_2(project):
    """1e-3 is a number and `no` is a word."""
    edit(project, FILE, "{lr: 0.1}", "{lr: 1e-3}")
    edit(project, FILE, "title: A table", "title: no")
    found = table(project)
    assert found.job("digits.iid.mlp.full", "fedavg").hyperparameters.lr == 0.001
    assert found.title == "no"


def test_configuration_decides_the_identity_of_a_run(project):
    def identities():
        jobs = table(project).jobs()
        return {j.arm.name + j.scenario.name: resolve.identity(j.configuration(), seed=0) for j in jobs}

    before = identities()
    assert before == identities()
    assert len(set(before.values())) == len(before)
    edit(project, "partitions/iid.yaml", 'title: "IID', 'title: "Another title')
    edit(project, FILE, "title: A table", "title: Another")
    assert identities() == before
    edit(project, FILE, "rounds: 3", "rounds: 4")
    after = identities()
    assert all(after[key] != before[key] for key in before)


# mistakes -----------------------------------------------------------------------------------------------------------

T, S = "params/benchmarks/table.yaml", "presets.small"
MISTAKES = {
    # file, text, replacement: the parts that the message must have, in this order
    "key of a table": (FILE, "title: A", "titel: A", [T, "unknown key 'titel'", "did you mean 'title'?", "presets"]),
    "key of a preset": (FILE, "seeds:", "seed:", [T, S, "unknown key 'seed'", "mean 'seeds'?", "allowed:", "target"]),
    "key of a scenario": (FILE, "partition:", "partitions:", [T, f"{S}.scenarios.0", "'partitions'", "'partition'?"]),
    "key of a budget": (FILE, "local_epochs", "local_epoch", [T, S, "budget", "'local_epoch'", "'local_epochs'?"]),
    "rounds": (FILE, "rounds: 3", "rounds: 0", [T, S, "budget: rounds", "greater than or equal to 1", "found 0"]),
    "batch size": (FILE, "batch_size: 16", "batch_size: x", [T, S, "budget: batch_size", "valid integer", "found 'x'"]),
    "missing budget": (FILE, ", batch_size: 16", "", [T, S, "budget: batch_size", "required"]),
    "step size": (FILE, "lr: 0.1", "lr: -0.1", [T, S, "fedavg on digits.iid", "lr", "greater than 0", "found -0.1"]),
    "not a number": (FILE, "lr: 0.1", "lr: .nan", [T, S, "lr", "finite number", "nan"]),
    "target": (FILE, "seeds: 2", "seeds: 2\n    target: 90", [T, f"{S}.target", "less than or equal to 1", "found 90"]),
    "algorithm": (FILE, "fedprox", "fedprx", [T, f"{S}.algorithms", "'fedprx'", "'fedprox'?", "allowed:", "fedyogi"]),
    "dataset": (FILE, "digits", "digit", [T, f"{S}.scenarios[0]", "params/datasets/digit.yaml", "'digits'?", "mnist"]),
    "partition": (FILE, "[iid", "[idd", [T, f"{S}.scenarios[0]", "params/partitions/idd.yaml", "'iid'?", "allowed:"]),
    "model": (FILE, "model: mlp", "model: mpl", [T, f"{S}.scenarios[0]", "params/models/mpl.yaml", "'mlp'?", "lenet"]),
    "schedule": (FILE, "model:", "schedule: ful, model:", [T, "params/schedules/ful.yaml", "'full'?", "sample-10"]),
    "shared setting": (FILE, "lr: 0.1", "lrr: 0.1", [T, S, "hyperparameters", "no algorithm", "'lrr'", "'lr'?", "mu"]),
    "entry's setting": (
        FILE,
        "fedprox",
        "{algorithm: fedprox, hyperparameters: {mi: 1}}",
        [T, S, "fedprox on digits.iid", "unknown key 'mi'", "'mu'?", "weighting"],
    ),
    "entry's name": (FILE, "fedprox", "{algorithm: fedprox, name: A b}", [T, f"{S}.algorithms.1.name", "A b"]),
    "entry's key": (FILE, "fedprox", "{algoritm: fedprox}", [T, f"{S}.algorithms.1", "'algoritm'", "'algorithm'?"]),
    "refused momentum": (
        FILE,
        "fedprox",
        "{algorithm: feddyn, hyperparameters: {momentum: 0.9}}",
        [T, S, "feddyn on", "momentum", "should be 0", "found 0.9"],
    ),
    "algorithm twice": (FILE, "fedprox", "fedavg", [T, S, "algorithm listed twice: fedavg"]),
    "scenario twice": (FILE, "[iid", "[iid, iid", [T, S, "scenario listed twice: digits.iid.mlp.full"]),
    "key twice": (FILE, "seeds: 2", "seeds: 2\n    seeds: 3", [T, "not valid YAML", 'duplicate key "seeds"', "line 6"]),
    "no YAML": (FILE, "seeds: 2", "seeds: [2", [T, "not valid YAML", "line"]),
    "no mapping": (FILE, TABLE, "- a\n- b\n", [T, "valid dictionary", "['a', 'b']"]),
    "nothing": (FILE, TABLE, "", [T, "title", "required", T, "presets", "required"]),
    "share of a schedule": (
        "schedules/full.yaml",
        "1.0",
        "1.5",
        ["params/schedules/full.yaml: participation", "less than or equal to 1", "found 1.5"],
    ),
    "shares of a partition": (
        "partitions/iid.yaml",
        "validation: 0.1",
        "validation: 0.9",
        ["params/partitions/iid.yaml", "validation + test", "less than 1"],
    ),
    "clients": ("partitions/iid.yaml", "clients: 10", "clients: 0", ["params/partitions/iid.yaml: clients", "found 0"]),
    "key of a model": ("models/mlp.yaml", "options", "option", ["params/models/mlp.yaml", "'option'", "'options'?"]),
    "default": (
        "algorithms/fedprox.yaml",
        "mu: 0.01",
        "mu: -1",
        ["params/algorithms/fedprox.yaml: defaults: mu", "greater than or equal to 0", "found -1"],
    ),
    "name of a default": (
        "algorithms/feddyn.yaml",
        "alpha: 0.1",
        "alfa: 0.1",
        ["params/algorithms/feddyn.yaml: defaults", "unknown key 'alfa'", "'alpha'?"],
    ),
    "search space": (
        "algorithms/fedprox.yaml",
        "mu: [0.001",
        "nu: [0.001",
        ["params/algorithms/fedprox.yaml: search", "'nu'", "'mu'?", "lr_decay"],
    ),
    "variant": (
        "algorithms/fedopt.yaml",
        "beta1: 0.9, server_lr",
        "beta_1: 0.9, server_lr",
        ["params/algorithms/fedopt.yaml: variants.fedavgm", "'beta_1'", "'beta1'?"],
    ),
    "choice": (
        "algorithms/fedopt.yaml",
        "optimizer: yogi",
        "optimizer: yoga",
        ["params/algorithms/fedopt.yaml: variants.fedyogi: optimizer", "'momentum', 'adagrad'", "found 'yoga'"],
    ),
    "name of a variant": (
        "algorithms/fedopt.yaml",
        "  fedavgm:",
        "  fedavg:",
        ["params/algorithms/fedopt.yaml: variants.fedavg", "taken", "params/algorithms/fedavg.yaml"],
    ),
    "evidence": (
        "algorithms/fedavg.yaml",
        "evidence: third-party code",
        "evidence: hearsay",
        ["params/algorithms/fedavg.yaml: published.0.evidence", "'official code'", "found 'hearsay'"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(project, mistake):
    file, old, new, parts = MISTAKES[mistake]
    edit(project, file, old, new)
    found = message(project)
    assert re.search(".*".join(map(re.escape, parts)), found, re.DOTALL), found


def test_all_mistakes_of_a_file_are_told_at_once(project):
    edit(project, FILE, "{rounds: 3, local_epochs: 2, batch_size: 16}", "{rounds: 0, local_epochs: -1, batch_size: 0}")
    lines = message(project).splitlines()
    assert [line.split(": ")[3] for line in lines] == ["rounds", "local_epochs", "batch_size"]


def test_unknown_tables_and_presets(project):
    assert "presets: no preset 'smal'; did you mean 'small'? allowed: small" in message(
        project, lambda p: resolve.benchmark(p, "table", "smal")
    )
    found = message(project, lambda p: resolve.benchmark(p, "tabel", "small"))
    assert found.startswith("params/config.yaml: benchmarks: no file params/benchmarks/tabel.yaml")
    assert "did you mean 'table'?" in found


def test_unknown_scenario_or_arm_of_a_table(project):
    found = table(project)
    assert "no scenario 'digits.iid.mlp.ful'; did you mean 'digits.iid.mlp.full'?" in message(
        project, lambda _: found.job("digits.iid.mlp.ful", "fedavg")
    )
    assert "no algorithm 'fedadm'; did you mean 'fedadam'?" in message(
        project, lambda _: found.job("digits.iid.mlp.full", "fedadm")
    )


def test_an_algorithm_without_parameter_file_is_an_error_that_names_both(project):
    (project.params / "algorithms" / "local-only.yaml").unlink()
    found = message(project)
    assert "src/heterobench/algorithms/local_only.py" in found
    assert "params/algorithms/local-only.yaml" in found


def test_a_parameter_file_without_algorithm_is_an_error_that_names_both(project):
    shutil.copy(project.params / "algorithms" / "fedavg.yaml", project.params / "algorithms" / "fedsgd.yaml")
    found = message(project)
    assert "params/algorithms/fedsgd.yaml" in found
    assert "src/heterobench/algorithms/fedsgd.py" in found


@pytest.mark.parametrize(
    ("file", "old", "new", "parts"),
    [
        ("models/mlp.yaml", "architecture: mlp", "architecture: mpl", ["params/models/mlp.yaml", "'mpl'", "'mlp'"]),
        ("models/mlp.yaml", "hidden:", "hiden:", ["params/models/mlp.yaml: options", "'hiden'", "'hidden'"]),
        ("partitions/iid.yaml", "scheme: iid", "scheme: idd", ["params/partitions/iid.yaml", "'idd'", "'iid'"]),
        ("partitions/dirichlet-0.1.yaml", "alpha:", "alfa:", ["params/partitions/dirichlet-0.1.yaml", "'alpha'"]),
    ],
)
def test_architectures_schemes_and_their_options_are_checked_early(project, file, old, new, parts):
    """Before anything is computed, not when the job starts."""
    edit(project, file, old, new)
    found = message(project)
    assert all(part in found for part in parts)


def test_a_method_that_solves_for_the_last_layer_needs_a_model_of_nothing_else(project):
    """As a row and as a trial of tuning, before anything is computed; where the extractor is fixed it is fine."""
    edit(project, FILE, "[fedavg, fedprox, fedadam]", "[fedavg, afl-analytic]")
    found = message(project)
    for part in ("afl-analytic on digits.iid.mlp.full", "params/models/mlp.yaml: architecture: mlp", "random_features"):
        assert part in found
    edit(project, FILE, "model: mlp", "model: random-relu-200")
    assert len(table(project).jobs()) == 4


def test_a_method_that_chooses_its_clients_needs_a_schedule_that_lets_it(project):
    """Before anything is computed; where clients are sampled it is fine."""
    edit(project, FILE, "[fedavg, fedprox, fedadam]", "[fedavg, curriculum-fl-clients]")
    edit(project, FILE, "model: mlp,", "model: mlp, schedule: markov-0.3,")
    found = message(project)
    for part in ("curriculum-fl-clients on digits.iid.mlp.markov-0.3", "params/schedules/markov-0.3.yaml", "markov:"):
        assert part in found
    edit(project, FILE, "schedule: markov-0.3", "schedule: sample-10")
    assert len(table(project).jobs()) == 4


@pytest.mark.parametrize("axis", ["partition: [iid, dirichlet-0.1]", "model: mlp"])
def test_an_empty_list_of_names_is_an_error(project, axis):
    edit(project, FILE, axis, f"{axis.split(':')[0]}: []")
    assert axis.split(":")[0] in message(project)


# config.yaml --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("threads: 1", "threads: 0", ["threads", "greater than or equal to 1", "found 0"]),
        ("device: auto", "device: gpu", ["device", "'auto', 'cpu' or 'cuda'", "found 'gpu'"]),
        ("device: auto", "devise: auto", ["unknown key 'devise'", "did you mean 'device'?", "threads"]),
        ("benchmarks: [label-skew]", "benchmarks: []", ["benchmarks", "at least 1 item"]),
    ],
)
def test_mistakes_in_the_config(project, old, new, parts):
    edit(project, "config.yaml", old, new)
    found = message(project, resolve.config)
    assert re.search(".*".join(map(re.escape, ["params/config.yaml", *parts])), found), found


def test_overrides_of_the_config(project, monkeypatch):
    """Arguments win over the environment, and it over the file."""
    monkeypatch.setenv(resolve.OVERRIDES, json.dumps({"threads": 3, "preset": "paper"}))
    found = resolve.config(project, threads=5)
    assert (found.threads, found.preset, found.benchmarks) == (5, "paper", ["label-skew"])
    assert "unknown key 'thread'" in message(project, lambda p: resolve.config(p, thread=2))


def test_a_config_that_is_no_mapping(project):
    (project.params / "config.yaml").write_text("- a\n- b\n")
    assert "params/config.yaml" in message(project, resolve.config)


def test_a_folder_without_project(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no params/config\.yaml in .* or above it"):
        Project.find(tmp_path)
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "config.yaml").write_text("benchmarks: [x]\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert Project.find(tmp_path / "a" / "b").root == tmp_path.resolve()


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigurationError, match=r"x\.yaml: no such file"):
        read_yaml(tmp_path / "x.yaml")


# the base class -----------------------------------------------------------------------------------------------------


def test_nearest_names():
    assert nearest("fedprx", ["fedavg", "fedprox"]) == "; did you mean 'fedprox'? allowed: fedavg, fedprox"
    assert nearest("zzz", ["b", "a"]) == "; allowed: a, b"
    assert nearest("x", []) == "; allowed: nothing"


def test_parameter_objects_are_frozen():
    schedule = ScheduleFile(title="x")
    with pytest.raises(ValueError, match="frozen"):
        schedule.participation = 0.5
    hp = registry.algorithm("fedavg").HyperParameters()
    with pytest.raises(ValueError, match="frozen"):
        hp.lr = 3


def test_infinite_numbers_are_refused():
    for value in (float("inf"), float("nan"), "nan"):
        with pytest.raises(ConfigurationError, match=r"^here: participation"):
            build(ScheduleFile, {"title": "x", "participation": value}, "here")


def test_an_empty_file_is_an_empty_mapping():
    class Empty(Strict):
        a: int = 1

    assert build(Empty, None, "here").a == 1


def test_plain_names_are_entries():
    preset = build(
        Preset, {"seeds": 1, "budget": {}, "algorithms": ["fedavg", {"algorithm": "fedprox", "name": "p"}]}
        | {"scenarios": [{"dataset": "d", "model": "m", "partition": "p"}]}, "here",
    )  # fmt: skip
    assert [entry.algorithm for entry in preset.algorithms] == ["fedavg", "fedprox"]
    assert preset.scenarios[0].schedule == "full"


def test_who_asked_is_named_when_a_file_is_missing(project):
    found = message(project, lambda p: load(p, "models", "mlpp", ModelFile, "somebody"))
    assert found.startswith("somebody: no file params/models/mlpp.yaml; did you mean 'mlp'?")


def test_unknown_algorithms_of_the_registry(project):
    assert "no algorithm 'fedavgg'; did you mean 'fedavg'?" in message(project, lambda _: registry.algorithm("fedavgg"))
    assert "_local-sgd" not in registry.algorithms()
    assert "local-only" in registry.algorithms()


def test_the_lock_file_holds_pins_only_and_every_package_that_the_project_names():
    lines = (REPOSITORY.root / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.\-]+==[A-Za-z0-9.]+", pin) for pin in pins)
    known = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    project = tomllib.loads((REPOSITORY.root / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {re.match(r"[A-Za-z0-9_.\-]+", name)[0].lower().replace("_", "-") for name in wanted} <= known
