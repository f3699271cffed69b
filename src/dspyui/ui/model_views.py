"""What the pages about registered models show, worked out from the domain. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self, get_args
from urllib.parse import quote, urlencode

from dspyui.domain.registry import (
    MAX_MODEL_NAME,
    GateWord,
    ModelQuery,
    ModelSort,
    ModelVersion,
    Stage,
    StageChange,
)
from dspyui.i18n import Text
from dspyui.services.models import reasons
from dspyui.ui import formats
from dspyui.ui.elements import Tone
from dspyui.ui.job_views import Certainty, certainty, difference_in_words

STAGE_TONES: Final[Mapping[Stage, Tone]] = {
    "None": "", "Staging": "warn", "Production": "good", "Archived": "",
}  # fmt: skip
GATE_TONES: Final[Mapping[GateWord, Tone]] = {
    "first": "", "better": "good", "unclear": "", "worse": "bad", "untested": "warn",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class AskedModels:
    """The list's address: what stands behind the question mark."""

    name: str = ""
    sort: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Self:
        """From the address's parameters; others are none of ours."""
        return cls(name=given.get("name", ""), sort=given.get("sort", ""))

    def query(self) -> ModelQuery:
        """The query; what is not known is left out."""
        sort: ModelSort = next((known for known in get_args(ModelSort) if known == self.sort), "updated")
        return ModelQuery(name=self.name[:MAX_MODEL_NAME], sort=sort)


def models_address(query: ModelQuery) -> str:
    """The address that shows this query."""
    wanted = {"name": query.name, "sort": "" if query.sort == "updated" else query.sort}
    text = urlencode({key: value for key, value in wanted.items() if value})
    return f"/models?{text}" if text else "/models"


def model_path(name: str) -> str:
    """The page of a model. A name may hold anything a path may not."""
    return f"/models/{quote(name, safe='')}"


def number_in(tags: Mapping[str, str], name: str) -> float | None:
    """A tag that holds a number; None when there is none, or something else in it."""
    try:
        return float(tags[name])
    except (KeyError, ValueError):
        return None


def recorded_certainty(tags: Mapping[str, str]) -> Certainty | None:
    """How sure the gain is, as a version's record says."""
    low, high = (number_in(tags, f"dspyui.score_improvement_ci_{end}") for end in ("low", "high"))
    return certainty(tags.get("dspyui.verdict"), low, high)


def scores_of(version: ModelVersion, text: Text) -> tuple[str, str]:
    """What it scored on its test rows, a dash where that is not known; and what the optimizer gained, with its
    interval and a word, or an empty text."""
    gained = number_in(version.tags, "dspyui.score_improvement")
    score = number_in(version.tags, "dspyui.evaluation_score")
    return formats.score(score), difference_in_words(gained, recorded_certainty(version.tags), text)


def other_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags that people have set: ours have names of their own, the audit record is the history."""
    kept = ("dspyui.", "mlflow.")
    return {name: value for name, value in sorted(tags.items()) if not name.startswith(kept)}


def why_of(change: StageChange, text: Text) -> str:
    """The reason of a change, with what the gate said and what was typed; a dash where nothing is known."""
    return "\n".join(reasons(change, text)) or "–"
