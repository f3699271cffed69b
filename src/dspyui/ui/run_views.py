"""What the pages about Runs show, worked out from the domain. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from string import ascii_uppercase
from typing import Any, Final, Self, get_args
from urllib.parse import quote, urlencode

from dspyui.domain.comparisons import Estimate
from dspyui.domain.intervals import Difference
from dspyui.domain.optimizers import OPTIMIZERS
from dspyui.domain.programs import MODULES
from dspyui.domain.run_list import MAX_FILTER, RunQuery, RunSort
from dspyui.domain.runs import RUN_KINDS, RunInfo, RunStatus
from dspyui.i18n import Text
from dspyui.ui import formats
from dspyui.ui.job_views import Certainty, certainty

STATES: Final[tuple[RunStatus, ...]] = get_args(RunStatus)
MODULE_LABELS: Final = tuple(info.label for info in MODULES.values())
OPTIMIZER_LABELS: Final = tuple(info.label for info in OPTIMIZERS.values())
# Short names of Runs that stand beside each other.
LETTERS: Final = ascii_uppercase
# The time at the end of the name that a Run gets when it is made.
_MADE_AT: Final = re.compile(r"-\d{8}-\d{6}$")


@dataclass(frozen=True, slots=True)
class AskedRuns:
    """The list's address: what stands behind the question mark."""

    name: str = ""
    program: str = ""
    lm: str = ""
    kind: str = ""
    state: str = ""
    module: str = ""
    optimizer: str = ""
    sort: str = ""
    order: str = ""
    deleted: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Self:
        """From the address's parameters; others are none of ours."""
        return cls(**{field.name: given.get(field.name, "") for field in fields(cls)})

    def query(self) -> RunQuery:
        """The query; what is not known is left out, for an address may come from another version."""
        sort: RunSort = next((name for name in get_args(RunSort) if name == self.sort), "started")
        return RunQuery(
            name=self.name[:MAX_FILTER],
            program=self.program[:MAX_FILTER],
            lm=self.lm[:MAX_FILTER],
            kind=next((kind for kind in RUN_KINDS if kind == self.kind), None),
            state=next((state for state in STATES if state == self.state), None),
            module=self.module if self.module in MODULE_LABELS else None,
            optimizer=self.optimizer if self.optimizer in OPTIMIZER_LABELS else None,
            deleted=self.deleted == "1",
            sort=sort,
            descending=self.order != "up",
        )


def address_of(query: RunQuery) -> str:
    """The address that shows this query."""
    plain = RunQuery()
    wanted: Mapping[str, Any] = {
        "name": query.name,
        "program": query.program,
        "lm": query.lm,
        "kind": query.kind,
        "state": query.state,
        "module": query.module,
        "optimizer": query.optimizer,
        "sort": query.sort if query.sort != plain.sort else "",
        "order": "" if query.descending else "up",
        "deleted": "1" if query.deleted else "",
    }
    text = urlencode({name: value for name, value in wanted.items() if value})
    return f"/runs?{text}" if text else "/runs"


def compare_address(run_ids: list[str]) -> str:
    """The page that shows Runs side by side."""
    return f"/runs/compare?{urlencode({'ids': ','.join(run_ids)}, safe=',')}"


def version_path(name: str, number: int) -> str:
    """The page of a model version. A name may hold anything a path may not."""
    return f"/models/{quote(name, safe='')}/{number}"


def optimizer_name(label: str | None, text: Text) -> str:
    """An optimizer as a Run is recorded with it, for people."""
    if label is None:
        return "–"
    return text("optimizer.none.label") if label == OPTIMIZERS["none"].label else label


def difference(info: RunInfo) -> tuple[float | None, Certainty | None]:
    """What the optimizer gained, and how sure that is; None where there is none."""
    low, high = (info.metrics.get(f"score_improvement_ci_{end}") for end in ("low", "high"))
    return info.metrics.get("score_improvement"), certainty(info.tags.get("dspyui.verdict"), low, high)


def short_name(info: RunInfo) -> str:
    """A Run's name without the optimizer and the time that a compile puts behind it: they stand beside it."""
    name = _MADE_AT.sub("", info.name)
    return name.removesuffix(f"-{info.params.get('optimizer')}") or info.run_id


def batch_score(info: RunInfo) -> tuple[str, str]:
    """What a batch's answers scored against the outputs of its file, and the interval; texts as in `difference`."""
    found = info.metrics.get("score")
    if found is None:
        return "–", ""
    low, high = (info.metrics.get(f"score_ci_{end}") for end in ("low", "high"))
    ends = "" if low is None or high is None else f"[{formats.score(low)} … {formats.score(high)}]"
    return formats.score(found), ends


def batch_address(info: RunInfo) -> str | None:
    """The Batch page with the program of a batch's Run; None when it had a file, which may lie elsewhere."""
    model = info.params.get("model", "")
    return f"/batch?{urlencode({'model': model})}" if model.startswith(("models:/", "runs:/")) else None


def seconds(info: RunInfo) -> float | None:
    """How long the compile took: what it recorded, else from MLflow's start to its end."""
    if "duration_seconds" in info.metrics:
        return info.metrics["duration_seconds"]
    if info.started_at is None or info.ended_at is None:
        return None
    return (info.ended_at - info.started_at).total_seconds()


def interval(found: Difference) -> str:
    """Its interval; a dash when there is none."""
    return "–" if found.low is None or found.high is None else formats.between(found.low, found.high)


def estimate(found: Estimate | None) -> str:
    """A score with its interval."""
    if found is None:
        return "–"
    return f"{formats.score(found.value)} [{formats.score(found.low)} … {formats.score(found.high)}]"


def param_in_words(name: str, value: str) -> str:
    """A recorded parameter: a list of fields by their names, with what else is said of each in brackets."""
    if not name.startswith("signature."):
        return value
    try:
        made = json.loads(value)
        return ", ".join(_field_in_words(dict(field)) for field in made)
    except (ValueError, TypeError, KeyError):
        # Instructions, or a record of another program.
        return value


def _field_in_words(field: dict[str, Any]) -> str:
    name = str(field.pop("name"))
    rest = ", ".join(str(value) for value in field.values())
    return f"{name} ({rest})" if rest else name


def p_value(value: float) -> str:
    """To three places; a very small one as an upper bound."""
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
