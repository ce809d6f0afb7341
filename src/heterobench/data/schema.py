"""What a file ``params/datasets/<name>.yaml`` may say."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from heterobench.config.reading import load
from heterobench.config.strict import Strict
from heterobench.project import Project

SOURCE = "source.json"  # written beside the raw files: which form they came in, and their checksums

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
RelativePath = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Source(Strict):
    """One place that has a file: a path below the mirror, a file in an installed package, or an address."""

    mirror: RelativePath | None = None
    package: str | None = None
    path: RelativePath | None = None
    url: str | None = None

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
    sha256: Sha256
    bytes: PositiveInt
    md5: str | None = None  # as the publisher prints it; for people, sha256 is what is checked
    sources: tuple[Source, ...] = Field(min_length=1)


class Output(Strict):
    """A raw file that a converter writes; without checksum where only the archive's checksum is known."""

    path: FileName
    sha256: Sha256 | None = None
    bytes: PositiveInt | None = None


class Form(Strict):
    """One published packing of the set. Without a converter the downloads are the raw files, verbatim."""

    name: str
    note: str = ""
    downloads: tuple[Download, ...] = Field(min_length=1)
    converter: str | None = None
    outputs: tuple[Output, ...] = ()

    @model_validator(mode="after")
    def _outputs_are_converted(self) -> Form:
        if (self.converter is None) != (not self.outputs):
            raise ValueError("converter and outputs belong together: give both or neither")
        return self

    @property
    def raw_files(self) -> tuple[Output, ...]:
        if self.outputs:
            return self.outputs
        return tuple(Output(path=file.path, sha256=file.sha256, bytes=file.bytes) for file in self.downloads)


class DatasetFile(Strict):
    """A data set: what it is, how it is read, and where its raw files come from.

    `shape` is [channels, height, width]; `mean` and `std` have one number a channel and hold for pixel values
    divided by `maximum`. The forms are tried in order; all give raw files of the same names.
    """

    title: str
    licence: str
    canonical: str
    description: str = ""
    classes: tuple[str, ...] = Field(min_length=2)
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    maximum: Annotated[int, Field(ge=1, le=255)] = 255
    mean: tuple[float, ...]
    std: tuple[PositiveFloat, ...]
    reader: str
    forms: tuple[Form, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> DatasetFile:
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise ValueError(f"mean and std need {self.shape[0]} numbers, one for each channel of shape")
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


def load_dataset_file(project: Project, name: str) -> DatasetFile:
    return load(project, "datasets", name, DatasetFile)
