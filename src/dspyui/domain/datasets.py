"""Where rows come from: a file, a kept data set, or the rows themselves."""

import re
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from dspyui.domain.base import Frozen
from dspyui.domain.splits import SPLITS, SplitName, SplitSpec
from dspyui.errors import BadRequestError


class FileSource(Frozen):
    """A file of rows: a path on this machine, or the digest of a kept data set."""

    path: str | None = None
    upload: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _check_file(self) -> Self:
        if (self.path is None) == (self.upload is None):
            raise BadRequestError("data.one_file")
        return self

    def portable(self) -> Self:
        """The same without the folders of a path."""
        return self.model_copy(update={"path": _bare(self.path)})


def _bare(path: str | None) -> str | None:
    # A path may come from a machine of the other kind.
    return None if path is None else re.split(r"[/\\]", path.rstrip("/\\"))[-1]


class DataSpec(Frozen):
    """Where the rows come from: exactly one of a path, a kept data set's digest, or the rows themselves.

    `columns` maps a field to the column that holds it, where the names differ; it holds for every file.
    The split is dealt by the shares of `split`, unless the data brings its own: `split_column` names a column that
    says it of each row, or `validation` and `test` are files of their own, each all of its split. What is left of
    the main rows is then dealt out by the remaining shares. Test rows whose inputs are also in another split are
    refused unless `allow_shared`.
    """

    path: str | None = None
    upload: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    rows: tuple[dict[str, Any], ...] | None = None
    columns: dict[str, str] = {}
    split: SplitSpec = SplitSpec()
    split_column: str | None = None
    validation: FileSource | None = None
    test: FileSource | None = None
    allow_shared: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(source is not None for source in (self.path, self.upload, self.rows)) != 1:
            raise BadRequestError("data.one_source")
        if self.split_column is not None and self.own_files:
            raise BadRequestError("data.two_splits", column=self.split_column)
        return self

    @property
    def own_files(self) -> Mapping[SplitName, FileSource]:
        """The splits that have a file of their own."""
        named: dict[SplitName, FileSource | None] = {"validation": self.validation, "test": self.test}
        return {name: source for name, source in named.items() if source is not None}

    @property
    def shares(self) -> Mapping[SplitName, float]:
        """The shares by which the main rows are dealt out. Empty: a column says where each row belongs."""
        if self.split_column is not None:
            return {}
        shares: dict[SplitName, float] = {
            name: getattr(self.split, name) for name in SPLITS if name not in self.own_files
        }
        return shares if any(shares.values()) else {"train": 1.0}

    @property
    def has_train(self) -> bool:
        """Whether the split can have training rows; a column of splits is believed until it is read."""
        return self.split_column is not None or self.shares.get("train", 0) > 0

    @property
    def has_validation(self) -> bool:
        """Whether the split can have validation rows."""
        return (
            self.split_column is not None
            or self.validation is not None
            or self.shares.get("validation", 0) > 0
        )

    @property
    def has_paths(self) -> bool:
        """Whether it names a file by where it lies."""
        return any(source.path is not None for source in (self, *self.own_files.values()))

    def portable(self) -> Self:
        """The same without the folders of its paths."""
        others = {name: source.portable() for name, source in self.own_files.items()}
        return self.model_copy(update={"path": _bare(self.path), **others})

    def digests(self) -> tuple[str, ...]:
        """The kept data sets it needs."""
        sources = (self.upload, *(source.upload for source in self.own_files.values()))
        return tuple(digest for digest in sources if digest is not None)
