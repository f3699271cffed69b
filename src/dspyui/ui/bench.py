"""What the Test page holds: programs side by side, and how their answers compare. Pure."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from dspyui.domain.batches import BatchModel
from dspyui.domain.engine import PredictOutcome
from dspyui.domain.signatures import FieldSpec, SignatureSpec, parse_value, type_label
from dspyui.errors import BadRequestError

MOST_PROGRAMS: Final = 4


@dataclass(frozen=True, slots=True)
class Chosen:
    """A program on the page. `asked` is the name it was chosen by, which a link to the page repeats; a file that was
    uploaded has none.
    """

    model: BatchModel
    asked: str = ""

    @property
    def signature(self) -> SignatureSpec:
        """What it takes and gives."""
        return self.model.program.spec.signature


@dataclass(slots=True)
class Bench:
    """Up to four programs that take the same inputs."""

    programs: list[Chosen] = field(default_factory=list)

    def add(self, chosen: Chosen) -> None:
        """Raises BadRequestError when there is no room, it is there already, or it takes other inputs."""
        if len(self.programs) >= MOST_PROGRAMS:
            raise BadRequestError("bench.full", limit=MOST_PROGRAMS)
        known = {(other.model.uri, other.model.digest) for other in self.programs}
        if (chosen.model.uri, chosen.model.digest) in known:
            raise BadRequestError("bench.twice", name=title_of(chosen.model))
        if self.programs:
            check_inputs(self.programs[0].model, chosen.model)
        self.programs.append(chosen)

    def address(self, rows: str = "", row: int = 0) -> str:
        """The page's address with these programs, and with the row of a table that stands in the form."""
        query = [("model", chosen.asked) for chosen in self.programs if chosen.asked]
        if rows:
            query += [("data", rows), ("row", str(row + 1))]
        return f"/test?{urlencode(query)}" if query else "/test"


def title_of(model: BatchModel) -> str:
    """What a program is called on the page."""
    return model.name if model.version is None else f"{model.name} · {model.version}"


def check_inputs(first: BatchModel, other: BatchModel) -> None:
    """Raise BadRequestError that names the field unless both take the same inputs, in whatever order."""
    names = {"name": title_of(other), "first": title_of(first)}
    mine, theirs = (
        {each.name: each for each in model.program.spec.signature.inputs} for model in (first, other)
    )
    if lacking := [name for name in mine if name not in theirs]:
        raise BadRequestError("bench.input_lacking", field=", ".join(lacking), **names)
    if extra := [name for name in theirs if name not in mine]:
        raise BadRequestError("bench.input_extra", field=", ".join(extra), **names)
    for name, input_ in mine.items():
        if type_label(input_) != type_label(theirs[name]):
            raise BadRequestError(
                "bench.input_type",
                field=name,
                type=type_label(theirs[name]),
                wanted=type_label(input_),
                **names,
            )


def differing(outcomes: Sequence[PredictOutcome | None]) -> frozenset[str]:
    """The outputs in which the programs that answered do not all agree; one that some do not have is one of them."""
    answered = [outcome.outputs for outcome in outcomes if outcome is not None and outcome.fault is None]
    if len(answered) < 2:
        return frozenset()
    names = {name for outputs in answered for name in outputs}
    return frozenset(name for name in names if len(set(_values(answered, name))) > 1)


def _values(answered: Sequence[dict[str, Any]], name: str) -> Iterator[str]:
    for outputs in answered:
        yield json.dumps(outputs[name], sort_keys=True) if name in outputs else ""


def matches(output: FieldSpec, value: Any, expected: Any) -> bool:
    """Whether an answer is what was expected, both in the field's type; text without outer spaces."""
    try:
        wanted = parse_value(output, expected, where="")
    except BadRequestError:
        return False
    if isinstance(wanted, str) and isinstance(value, str):
        return wanted.strip() == value.strip()
    return wanted == value
