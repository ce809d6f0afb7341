"""Names, relative paths, addresses and titles: what is allowed, and that all else is told before anything runs."""

from __future__ import annotations

import json
import re
import shutil
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heterobench import resolve
from heterobench.commands.single import draw_pictures
from heterobench.config import names as rules
from heterobench.config.reading import names
from heterobench.config.strict import build
from heterobench.data.page import MADE, write_pages
from heterobench.data.readers import medmnist
from heterobench.data.schema import Source, load_dataset_file
from heterobench.errors import ConfigurationError
from heterobench.project import Project

ROOT = Path(__file__).parents[2]
KINDS = ("algorithms", "benchmarks", "datasets", "models", "partitions", "schedules")
PLAIN = set(string.ascii_letters + string.digits + "._-")
NO_NAMES = [
    "Dir(0.1)",
    "quick run",
    "$(touch pwned)",
    "`touch pwned`",
    "a;b",
    "a'b",
    'a"b',
    "a/b",
    "../x",
    "..",
    ".hidden",
    "-x",
    "",
    "a\nb",
    "a\n",
    "é",
    "a{b}",
    "a*",
    "x" * 51,
]
TABLE = """
title: A table
presets:
  small:
    seeds: 1
    scenarios: [{dataset: digits, model: softmax, partition: iid}]
    budget: {rounds: 1, batch_size: 32}
    algorithms: [fedavg]
"""


@pytest.fixture
def project(tmp_path):
    shutil.copytree(ROOT / "params", tmp_path / "params")
    (tmp_path / "params/benchmarks/table.yaml").write_text(TABLE)
    return Project(tmp_path.resolve())


def refused(call, *parts: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        call()
    for part in parts:
        assert part in str(error.value)
    return str(error.value)


# names ---------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=60))
def test_a_name_is_plain_characters_and_nothing_else(text):
    good = 0 < len(text) <= 50 and set(text) <= PLAIN and text[0] not in "._-"
    assert (rules.name_problem(text) is None) == good


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_whose_name_is_no_name_is_told_before_any_job(tmp_path, kind):
    project, folder = Project(tmp_path), tmp_path / "params" / kind
    folder.mkdir(parents=True)
    for name in NO_NAMES:
        if name and "/" not in name and name[0] != ".":
            path = folder / f"{name}.yaml"
            path.write_text("title: x\n")
            refused(lambda: names(project, kind), f"params/{kind}", repr(name), "A-Z, a-z, 0-9", "rename")
            path.unlink()


def test_a_file_whose_name_is_no_text_is_told_in_printable_letters(project):
    (Path(str(project.params)) / "models" / "a\udcffb.yaml").write_text("title: x\n")
    refused(lambda: names(project, "models"), "params/models", "A-Z").encode("utf-8")


def test_what_editors_leave_beside_a_file_is_no_thing(project):
    (project.params / "models" / ".#mlp.yaml").symlink_to("nobody@nowhere")
    (project.params / "models" / "._mlp.yaml").write_bytes(b"\0\5\26\7")
    assert not [name for name in names(project, "models") if name.startswith(".")]


def test_a_benchmark_is_not_called_like_what_lies_beside_it(project):
    for name in ("logs", "partitions", "single", "report.html"):
        path = project.params / f"benchmarks/{name}.yaml"
        path.write_text(TABLE)
        refused(lambda: resolve.benchmark(project, path.stem, "small"), f"results/{name}")  # noqa: B023
        path.unlink()


def test_the_reserved_names_are_what_lies_in_results_beside_tables(tmp_path):
    """From the paths that the project names, and the rules' logs."""
    project, found = Project(tmp_path), {"logs", "report.html", "single"}
    found.add(project.partition_picture("d", "p").relative_to(project.results).parts[0])
    assert found == set(rules.RESERVED)
    rules_of = "".join(path.read_text() for path in [*ROOT.glob("workflow/rules/*.smk"), ROOT / "Makefile"])
    assert set(re.findall(r"results/([\w.]+)", rules_of)) <= found


def test_presets_and_rows_have_names(project):
    path = project.params / "benchmarks/table.yaml"
    for name in NO_NAMES:
        quoted = json.dumps(name)
        path.write_text(TABLE.replace("  small:", f"  {quoted}:"))
        refused(lambda: resolve.benchmark(project, "table", name), "params/benchmarks/table.yaml: presets", "A-Z")  # noqa: B023
        path.write_text(TABLE.replace("[fedavg]", f"[{{algorithm: fedavg, name: {quoted}}}]"))
        refused(lambda: resolve.benchmark(project, "table", "small"), "algorithms.0.name", "A-Z")


def test_a_variant_has_a_name(project):
    path = project.params / "algorithms/fedopt.yaml"
    path.write_text(path.read_text().replace("  fedavgm:", "  $(touch pwned):"))
    refused(lambda: resolve.algorithm_files(project), "params/algorithms/fedopt.yaml: variants", "'$(touch pwned)'")


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "$(touch pwned)"])
def test_commands_take_names_of_things_that_are_there(project, name):
    for call in (
        lambda: resolve.benchmark(project, name, "small"),
        lambda: resolve.benchmark(project, "table", name),
        lambda: resolve.benchmark(project, "table", "small").job(name, "fedavg"),
        lambda: load_dataset_file(project, name),
        lambda: draw_pictures(project, name, ["iid"], 0),
    ):
        refused(call, name)


def test_the_longest_names_make_file_names_that_the_system_takes(tmp_path):
    """A scenario is four names; files are written under a temporary name first."""
    scenario = ".".join(["x" * rules.LONGEST] * 4)
    (tmp_path / f".{scenario}.parquet.abcdefgh").write_text("")


# paths and addresses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["a/../../x", "../x", "/etc/passwd", "a//b", "a/", "a/./b", "a/.git/config", "a b", "a\\b", "a/b\n", ""]
)
@pytest.mark.parametrize("key", ["mirror", "path"])
def test_relative_paths_stay_below(key, path):
    values = {"mirror": path} if key == "mirror" else {"package": "sklearn", "path": path}
    refused(lambda: build(Source, values, "here"), f"here: {key}", repr(path), "'..'")


@pytest.mark.parametrize("package", ["os.path", "a b", "../x", ""])
def test_a_package_is_looked_for_and_not_imported(package):
    refused(lambda: build(Source, {"package": package, "path": "x"}, "here"), "here: package", repr(package))


@pytest.mark.parametrize(
    "url",
    ["data:text/plain,x", "/etc/passwd", "file:etc/passwd", "file://host/x", "http:///x", "https://a b/c", "ssh://a/b"],
)
def test_addresses_have_a_scheme_that_is_read(url):
    refused(lambda: build(Source, {"url": url}, "here"), "here: url", repr(url), "https://")


def with_url(project: Project, url: str) -> None:
    path = project.params / "datasets/own.yaml"
    path.write_text(f"""
title: Own
licence: own
canonical: none
classes: [a, b]
shape: [1, 8, 8]
maximum: 255
mean: [0.5]
std: [0.3]
reader: medmnist
options: {{file: own.npz}}
forms: [{{name: local, downloads: [{{path: own.npz, sha256: {"a" * 64}, sources: [{{url: "{url}"}}]}}]}}]
""")


@pytest.mark.parametrize("place", ["own/own.npz", "own/../own.npz", "my%20data/own.npz"])
def test_a_file_of_the_project_may_be_named_by_its_address(project, place):
    with_url(project, f"{project.root.as_uri()}/{place}")
    load_dataset_file(project, "own")


@pytest.mark.parametrize("place", ["/etc/passwd", "{root}/../x", "{root}/own/%2e%2e/%2E%2E/x", "{root}-other/x"])
def test_a_file_outside_the_project_is_the_mirrors_business(project, place):
    with_url(project, "file://" + place.format(root=project.root))
    refused(lambda: load_dataset_file(project, "own"), "params/datasets/own.yaml", "own.npz", "HETEROBENCH_MIRROR")


def test_data_on_another_disk_may_be_linked_into_the_project(project, tmp_path_factory):
    (project.root / "own").symlink_to(tmp_path_factory.mktemp("disk"))
    with_url(project, f"{project.root.as_uri()}/own/own.npz")
    load_dataset_file(project, "own")


def test_a_reader_reads_in_its_folder(tmp_path):
    refused(lambda: build(medmnist.Options, {"file": "../../x.npz"}, "here"), "here: file", "'../../x.npz'")


def test_pages_of_others_are_not_lost(project, tmp_path_factory):
    """`heterobench document --output .` once took every page of the folder away."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "mine.md").write_text("# What I wrote")
    refused(lambda: write_pages(project, folder), "mine.md")
    assert [path.name for path in folder.iterdir()] == ["mine.md"]
    (folder / "mine.md").write_text(f"# Of a set that is no more\n\n{MADE}\n")
    assert folder / "digits.md" in write_pages(project, folder)
    assert not (folder / "mine.md").exists()


# titles --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("title", ["a\\nb", "a\\tb", "\\u202Eabc", "\\u2028", "\\x1b[2J", "a" * 201])
def test_a_title_is_one_line_that_prints_as_it_reads(project, title):
    path = project.params / "benchmarks/table.yaml"
    path.write_text(TABLE.replace("title: A table", f'title: "{title}"'))
    refused(lambda: resolve.benchmark(project, "table", "small"), "params/benchmarks/table.yaml: title", "found")


def test_longer_texts_have_no_control_characters(project):
    path = project.params / "benchmarks/table.yaml"
    path.write_text(TABLE + 'about: "a\\x07b"\n')
    refused(lambda: resolve.benchmark(project, "table", "small"), "about", "'\\x07'")
    path.write_text(TABLE + 'about: "a\\n\\tb é 漢"\n')
    resolve.benchmark(project, "table", "small")
