"""Pages about the data sets: made from the parameter files, and as the repository holds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from heterobench.config.reading import names
from heterobench.data.page import MADE, write_pages
from heterobench.data.schema import load_dataset_file
from heterobench.project import Project

REPOSITORY = Project(Path(__file__).parents[2])
NAMES = names(REPOSITORY, "datasets")


def test_the_pages_of_the_repository_are_those_of_its_parameter_files(tmp_path):
    """After a change of a parameter file: `snakemake data_set_pages`."""
    (tmp_path / "gone.md").write_text(f"of a set that is no more\n{MADE}")
    made = write_pages(REPOSITORY, tmp_path)
    kept = REPOSITORY.root / "docs" / "datasets"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in kept.iterdir())
    for path in made:
        assert path.read_text() == (kept / path.name).read_text(), path.name


@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_size_licence_clients_and_checksums(name):
    file = load_dataset_file(REPOSITORY, name)
    text = (REPOSITORY.root / "docs" / "datasets" / f"{name}.md").read_text()
    assert file.samples is not None
    assert f"{file.samples.train:,} + {file.samples.test:,}" in text
    assert file.licence in text
    for attribute, about in file.attributes.items():
        assert f"| {attribute} | {about.use} | {about.train} |" in text
    for form in file.forms:
        for download in form.downloads:
            assert (download.sha256 or download.md5) in text
