"""What a file ``params/datasets/<name>.yaml`` may say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import Field, model_validator
from pydantic import Strict as Strictness

from heterobench.config.names import Address, FileName, Package, RelativePath, Title
from heterobench.config.numbers import Bytes, Count, Examples, Pixel, Positive, Real
from heterobench.config.reading import load
from heterobench.config.strict import Strict
from heterobench.errors import ConfigurationError
from heterobench.project import Project

SOURCE = "source.json"  # written beside the raw files: which form they came in, and their checksums

Item = TypeVar("Item")
Several = Annotated[tuple[Item, ...], Strictness(False)]  # YAML has lists alone
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Source(Strict):
    """One place that has a file: a path below the mirror, a file in an installed package, or an address."""

    mirror: RelativePath | None = None
    package: Package | None = None
    path: RelativePath | None = None
    url: Address | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        given = [self.mirror, self.package, self.url]
        if sum(place is not None for place in given) != 1 or (self.package is None) != (self.path is None):
            raise ValueError("give exactly one of: mirror; package and path; url")
        return self

    def __str__(self) -> str:
        if self.package:
            return f"package {self.package}, {self.path}"
        return self.url or f"mirror {self.mirror}"


class Download(Strict):
    """A published file: its name, its checksums, and its sources in the order in which they are tried."""

    path: FileName
    sha256: Sha256 | None = None
    bytes: Bytes | None = None  # None: nobody published the size, the checksum alone decides
    md5: Md5 | None = None  # as the publisher prints it; checked only where no sha256 is known
    sources: Several[Source] = Field(min_length=1)

    @model_validator(mode="after")
    def _can_be_verified(self) -> Download:
        if self.sha256 is None and self.md5 is None:
            raise ValueError(
                "give sha256, or md5 where no sha256 is published; `sha256sum FILE` prints that of a file of yours"
            )
        return self


class Output(Strict):
    """A raw file that a converter writes; without checksum where only the archive's checksum is known."""

    path: FileName
    sha256: Sha256 | None = None
    bytes: Bytes | None = None
    md5: Md5 | None = None  # counts only where there is no sha256


class Form(Strict):
    """One published packing of the set. Without a converter the downloads are the raw files, verbatim.

    With one, a download whose name is among the outputs is a raw file as it is; the converter makes the others.
    """

    name: Title
    note: str = ""
    downloads: Several[Download] = Field(min_length=1)
    converter: str | None = None
    outputs: Several[Output] = ()

    @model_validator(mode="after")
    def _outputs_are_converted(self) -> Form:
        if (self.converter is None) != (not self.outputs):
            raise ValueError("converter and outputs belong together: give both or neither")
        return self

    @property
    def raw_files(self) -> tuple[Output, ...]:
        if self.outputs:
            return self.outputs
        return tuple(Output(**file.model_dump(exclude={"sources"})) for file in self.downloads)


KINDS = {
    "image": "uint8 pixels [channels, height, width] from 0 to maximum; mean and std per channel, of pixels / maximum",
    "signal": "float32 [channels, ...]; mean and std per channel are those of the training part",
    "table": "float32 [columns]; mean and std per column are those of the training part, indicators (0 or 1) stay",
    "tokens": "uint8 [length], numbers of symbols of the alphabet that is also the classes: the label comes next",
}


class Attribute(Strict):
    """Something known about every example beside its class: who it is from, where it is from, a protected group."""

    about: str
    use: Literal["client", "domain", "population", "protected"] = Field(
        description="client: a natural client; domain: where features differ; population: a group of natural clients"
    )
    train: Examples | None = Field(None, description="how many values occur among the training examples")


class Samples(Strict):
    """Numbers of examples in the official split."""

    train: Examples
    test: Examples


class DatasetFile(Strict):
    """A data set: what it is, how it is read, and where its raw files come from.

    The forms are tried in order; all give raw files of the same names.
    """

    title: Title
    licence: str
    canonical: str
    description: str = ""
    kind: Literal[tuple(KINDS)] = "image"
    classes: Several[Title] = Field(min_length=2)
    shape: Several[Count] = Field(min_length=1, max_length=8, description="of one input, as its kind says")
    maximum: Pixel | None = None
    mean: Several[Real] = ()
    std: Several[Positive] = ()
    samples: Samples | None = None
    attributes: dict[Annotated[str, Field(pattern=r"^[a-z][a-z_]*$")], Attribute] = {}
    reader: str
    options: dict[str, Any] = Field({}, description="of the reader")
    forms: Several[Form] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> DatasetFile:
        if self.kind == "image":
            if len(self.shape) != 3 or not len(self.mean) == len(self.std) == self.shape[0]:
                raise ValueError("an image has shape [channels, height, width], and a mean and a std for each channel")
            if self.maximum is None:
                raise ValueError("an image needs maximum, the largest pixel value")
        elif self.mean or self.std or self.maximum is not None:
            raise ValueError(f"mean, std and maximum belong to images, not to kind {self.kind!r}")
        if self.kind in ("table", "tokens") and len(self.shape) != 1:
            raise ValueError(f"kind {self.kind!r} has one length as its shape")
        for form in self.forms:
            paths = [file.path for file in form.raw_files]
            if SOURCE in paths:
                raise ValueError(f"form {form.name!r}: the name {SOURCE} is taken")
            if paths != self.raw_paths:
                raise ValueError(f"form {form.name!r} gives {paths}, the first form {self.raw_paths}")
        return self

    @property
    def raw_paths(self) -> list[str]:
        return [file.path for file in self.forms[0].raw_files]


def load_dataset_file(project: Project, name: str, where: str | None = None) -> DatasetFile:
    """The data set called `name`; `where` says who asked for it. No file: address of it leads out of the project."""
    dataset = load(project, "datasets", name, DatasetFile, where)
    for form in dataset.forms:
        for download in form.downloads:
            for source in download.sources:
                if source.url and source.url.startswith("file:") and not _inside(project, source.url):
                    raise ConfigurationError(
                        f"params/datasets/{name}.yaml: form {form.name!r}: {download.path}: {source.url} is outside "
                        f"the project: allowed are file: addresses below {project.root.as_uri()}. What to do: say "
                        "`mirror: PATH` here and set HETEROBENCH_MIRROR to the folder that has it"
                    )
    return dataset


def _inside(project: Project, url: str) -> bool:
    """Is the file of a file: address below the project, as it is written or with links followed?"""
    path = os.path.normpath(url2pathname(urlsplit(url).path))
    return any(Path(place).is_relative_to(project.root) for place in (path, os.path.realpath(path)))
