"""What rows are to a signature: parsed, counted, and each in its split."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dspyui.domain.base import Notice
from dspyui.domain.datasets import DataSpec
from dspyui.domain.rows import input_key, row_key, short_digest
from dspyui.domain.signatures import Row, SignatureSpec, parse_row
from dspyui.domain.splits import SPLITS, RowGroups, SplitName, deal_groups, split_named
from dspyui.domain.tables import PackedRows, RawTable
from dspyui.errors import BadRequestError

# A score over fewer test rows says nothing; over fewer than the second, one row moves it a lot.
TINY_TEST: Final = 5
SMALL_TEST: Final = 20
_NAMED_ROWS: Final = 5


@dataclass(frozen=True)
class Dataset:
    """Rows parsed to the signature's types, with the digest of their content (SHA-256, hex).

    `parts` is the split of each row; it is `given` when the data brought it (or some of it) along.
    `duplicates` counts the rows that stand before them already, `conflicts` the inputs that stand with different
    outputs, `shared` the rows of a split whose inputs are also in one named before it in train, validation, test.
    """

    rows: Sequence[Row]
    digest: str
    duplicates: int
    conflicts: int
    parts: Sequence[SplitName]
    given: bool
    shared: Mapping[SplitName, int]

    def sizes(self) -> dict[SplitName, int]:
        """Rows of each split."""
        return {name: self.parts.count(name) for name in SPLITS}

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the rows and of the split that the data gives each: what a compile would work on."""
        given = ",".join(self.parts) if self.given else ""
        return hashlib.sha256(f"{self.digest}:{given}".encode()).hexdigest()

    def notices(self) -> tuple[Notice, ...]:
        """What the data cannot show, and what is odd about it, the gravest first."""
        return tuple(_notices(self))


def _notices(data: Dataset) -> Iterator[Notice]:
    tested = data.parts.count("test")
    if tested < TINY_TEST:
        yield Notice(key="data_notice.test_tiny", values={"rows": tested})
    elif tested < SMALL_TEST:
        yield Notice(key="data_notice.test_small", values={"rows": tested, "step": f"{1 / tested:.2f}"})
    if shared := data.shared.get("test", 0):
        yield Notice(key="data_notice.shared_test", values={"count": shared})
    if shared := data.shared.get("validation", 0):
        yield Notice(key="data_notice.shared_validation", values={"count": shared})
    if data.conflicts:
        yield Notice(key="data_notice.conflicts", values={"count": data.conflicts})
    if data.duplicates:
        yield Notice(key="data_notice.duplicates", values={"count": data.duplicates})


def parse_dataset(
    signature: SignatureSpec, data: DataSpec, main: RawTable, others: Mapping[SplitName, tuple[str, RawTable]]
) -> Dataset:
    """Check that every field has a column, parse every row, and say which split it is in.

    `others` are the tables of `data.own_files` with the names they go by. Raises BadRequestError when there are no
    rows, a column is missing, a value does not fit its field or names no split, a split stays empty, or test rows
    are in another split too; the message names the row (counted from 1), and the file when there are several.
    """
    reading = _Reading(signature, data)
    reading.take(main)
    for name, (source, table) in others.items():
        reading.take(table, source=source, part=name)
    return reading.dataset()


class _Reading:
    """Takes one table after the other and keeps of each row its line, its group and its split."""

    def __init__(self, signature: SignatureSpec, data: DataSpec) -> None:
        self._signature = signature
        self._data = data
        self._inputs = [field.name for field in signature.inputs]
        self._lines: list[bytes] = []
        self._wheres: list[tuple[int, str]] = []
        self._parts: list[SplitName] = []
        self._sha = hashlib.sha256()
        self._seen: set[bytes] = set()
        self._groups = RowGroups()
        self._first: list[bytes] = []
        self._conflicting: set[int] = set()

    def take(self, table: RawTable, *, source: str = "", part: SplitName | None = None) -> None:
        """Parse a table's rows; all of them are of `part`, if that is given."""
        if not table.rows:
            raise BadRequestError("data.empty_in", source=source) if source else BadRequestError("data.empty")
        columns = self._columns(table, source)
        split_column = self._data.split_column
        self._wheres.append((len(self._lines), source))
        for number, raw in enumerate(table.rows, start=1):
            where = f"{source} #{number}" if source else f"#{number}"
            given = {name: raw.get(column) for name, column in columns.items()}
            self._keep(parse_row(self._signature.fields, given, where=where))
            if part is not None:
                self._parts.append(part)
            elif split_column is not None:
                self._parts.append(split_named(raw.get(split_column), split_column, where))

    def _columns(self, table: RawTable, source: str) -> Mapping[str, str]:
        """The column of each field. Raises BadRequestError for one that is not there."""
        data, found = self._data, ", ".join(table.columns) or "—"
        names = [field.name for field in self._signature.fields]
        if unknown := [name for name in data.columns if name not in names]:
            raise BadRequestError("data.map_field", field=unknown[0], known=", ".join(names))
        columns = {name: data.columns.get(name, name) for name in names}
        lacking = [column for column in columns.values() if column not in table.columns]
        if lacking and source:
            raise BadRequestError("data.columns_in", source=source, missing=", ".join(lacking), found=found)
        if lacking:
            raise BadRequestError("data.columns", missing=", ".join(lacking), found=found)
        if data.split_column is not None and data.split_column not in table.columns:
            raise BadRequestError("data.split_column", column=data.split_column, found=found)
        return columns

    def _keep(self, row: Row) -> None:
        line = row_key(row).encode()
        self._lines.append(line)
        self._sha.update(line)
        self._sha.update(b"\n")
        whole = short_digest(line)
        self._seen.add(whole)
        group = self._groups.add(input_key(row, self._inputs))
        if group == len(self._first):
            self._first.append(whole)
        elif self._first[group] != whole:
            self._conflicting.add(group)

    def dataset(self) -> Dataset:
        """What all tables gave."""
        parts, given = self._all_parts()
        names = [field.name for field in self._signature.fields]
        return Dataset(
            rows=PackedRows(self._lines, lambda line: _in_order(json.loads(line), names)),
            digest=self._sha.hexdigest(),
            duplicates=len(self._lines) - len(self._seen),
            conflicts=len(self._conflicting),
            parts=parts,
            given=given,
            shared=self._shared(parts) if given else {},
        )

    def _all_parts(self) -> tuple[list[SplitName], bool]:
        data = self._data
        if data.split_column is not None:
            if "test" not in self._parts:
                raise BadRequestError("data.split_no_test", column=data.split_column)
            return self._parts, True
        main = self._groups.of_row[: len(self._lines) - len(self._parts)]
        of_group = deal_groups(main, data.shares, data.split.seed)
        return [*(of_group[group] for group in main), *self._parts], bool(data.own_files)

    def _shared(self, parts: Sequence[SplitName]) -> Mapping[SplitName, int]:
        holders: dict[SplitName, set[int]] = {name: set() for name in SPLITS}
        for group, part in zip(self._groups.of_row, parts, strict=True):
            holders[part].add(group)
        known = holders["train"] | holders["validation"]
        in_test, in_validation = known & holders["test"], holders["train"] & holders["validation"]
        tested = self._rows_of(parts, "test", in_test)
        if tested and not self._data.allow_shared:
            named = ", ".join(self._where(index) for index in tested[:_NAMED_ROWS])
            more = ", …" if len(tested) > _NAMED_ROWS else ""
            raise BadRequestError("data.shared", count=len(tested), rows=named + more)
        return {"test": len(tested), "validation": len(self._rows_of(parts, "validation", in_validation))}

    def _rows_of(self, parts: Sequence[SplitName], part: SplitName, groups: set[int]) -> list[int]:
        if not groups:
            return []
        pairs = enumerate(zip(self._groups.of_row, parts, strict=True))
        return [index for index, (group, held) in pairs if held == part and group in groups]

    def _where(self, index: int) -> str:
        first, source = next(place for place in reversed(self._wheres) if place[0] <= index)
        return f"{source} #{index - first + 1}".strip()


def _in_order(row: Row, names: Sequence[str]) -> Row:
    return {name: row[name] for name in names}
