"""Training, validation and test: which rows go into which."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

from pydantic import Field

from dspyui.domain.base import Frozen
from dspyui.domain.rows import input_key
from dspyui.domain.signatures import Row
from dspyui.errors import BadRequestError

SplitName = Literal["train", "validation", "test"]
SPLITS: Final[tuple[SplitName, ...]] = get_args(SplitName)

# What a column of splits may say, in any case; a test holds each of them.
SPLIT_WORDS: Final[Mapping[str, SplitName]] = {
    **dict.fromkeys(("train", "training", "训练", "训练集"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "验证", "验证集"), "validation"),
    **dict.fromkeys(("test", "testing", "测试", "测试集"), "test"),
}
_FILLED_FIRST: Final[tuple[SplitName, ...]] = ("test", "validation")


class SplitSpec(Frozen):
    """Shares of the rows, and the seed that shuffles them. Shares are taken in proportion; test must have one."""

    train: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    validation: float = Field(default=0.2, ge=0, allow_inf_nan=False)
    test: float = Field(default=0.3, gt=0, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, lt=2**32)


class Splits(Frozen):
    """The same rows, each in one split only."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]

    def by_name(self) -> Mapping[SplitName, tuple[Row, ...]]:
        """The splits in their usual order."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def split_rows(rows: Sequence[Row], inputs: Sequence[str], spec: SplitSpec) -> Splits:
    """Shuffle with the seed and deal out the rows by the shares.

    Rows with equal inputs stay together in one split, so that no test row was seen in training. Sizes
    come within one group of the exact shares; test is filled first, then train. Raises BadRequestError
    when test, or a split with a share, would stay empty.
    """
    groups = RowGroups()
    for row in rows:
        groups.add(input_key(row, inputs))
    names = deal_groups(groups.of_row, {name: getattr(spec, name) for name in SPLITS}, spec.seed)
    members: dict[int, list[Row]] = {group: [] for group in names}
    for row, group in zip(rows, groups.of_row, strict=True):
        members[group].append(row)
    parts: dict[SplitName, list[Row]] = {name: [] for name in SPLITS}
    for group, name in names.items():
        parts[name].extend(members[group])
    return Splits(**{name: tuple(part) for name, part in parts.items()})


def sort_rows(rows: Sequence[Row], parts: Sequence[SplitName]) -> Splits:
    """The rows by the split that each was said to be in."""
    sorted_rows: dict[SplitName, list[Row]] = {name: [] for name in SPLITS}
    for row, part in zip(rows, parts, strict=True):
        sorted_rows[part].append(row)
    return Splits(**{name: tuple(found) for name, found in sorted_rows.items()})


class RowGroups:
    """Numbers groups of rows with equal keys, in the order in which they come."""

    def __init__(self) -> None:
        self.of_row: list[int] = []
        self._numbers: dict[bytes, int] = {}

    def add(self, key: bytes) -> int:
        """The number of the row's group."""
        number = self._numbers.setdefault(key, len(self._numbers))
        self.of_row.append(number)
        return number


def deal_groups(
    of_row: Sequence[int], shares: Mapping[SplitName, float], seed: int
) -> Mapping[int, SplitName]:
    """The split of each group, in the order in which they were dealt out."""
    sizes: dict[int, int] = {}
    for group in of_row:
        sizes[group] = sizes.get(group, 0) + 1
    shuffled = list(sizes)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - a seeded shuffle, not a secret
    wanted: dict[SplitName, float] = {name: share for name, share in shares.items() if share > 0}
    rest: SplitName = "train" if "train" in wanted else "test" if "test" in wanted else "validation"
    total = sum(wanted.values())
    targets: dict[SplitName, int] = {}
    for name in _FILLED_FIRST:
        if share := wanted.get(name):
            targets[name] = max(1, round(len(of_row) * share / total))
    counts: dict[SplitName, int] = dict.fromkeys(wanted, 0)
    dealt: dict[int, SplitName] = {}
    for group in shuffled:
        chosen = rest
        for name, target in reversed(targets.items()):
            if counts[name] < target:
                chosen = name
        counts[chosen] += sizes[group]
        dealt[group] = chosen
    for name in SPLITS:
        if counts.get(name) == 0:
            raise BadRequestError("data.split_empty", split=name, rows=len(of_row), groups=len(shuffled))
    return dealt


def split_named(value: Any, column: str, where: str) -> SplitName:
    word = str("" if value is None else value).strip().casefold()
    if word not in SPLIT_WORDS:
        raise BadRequestError("data.split_value", where=where, column=column, value=repr(value)[:80])
    return SPLIT_WORDS[word]
