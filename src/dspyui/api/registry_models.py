"""What the API takes and tells of registered models."""

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from dspyui.domain.promotions import GateReport
from dspyui.domain.registry import ChangeKind, GateWord, ModelVersion, RegisteredModel, Stage, StageChange
from dspyui.i18n import Language
from dspyui.services.models import ListedVersion, ModelDetail
from dspyui.settings import PromotionGate


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _number(tags: dict[str, str], name: str) -> float | None:
    try:
        return float(tags[name])
    except (KeyError, ValueError):
        return None


class ChangeItem(_Model):
    """An entry of the audit record. `by` is the version that took its place, `gate` what the gate said."""

    who: str
    at: datetime
    from_stage: Stage
    to_stage: Stage
    why: str
    kind: ChangeKind
    by: int | None
    gate: GateWord | None
    gate_message: str | None
    confirmed: str

    @classmethod
    def of(cls, change: StageChange, language: Language) -> Self:
        """From the domain."""
        gate = change.gate
        return cls(
            **change.model_dump(include={"who", "at", "from_stage", "to_stage", "why", "kind", "by"}),
            gate=gate.word if gate else None,
            gate_message=gate.result.sentence(language) if gate else None,
            confirmed=gate.confirmed if gate else "",
        )


class VersionItem(_Model):
    """A version. `unloadable` says why DSPyUI does not load it; None when it does, or has not looked."""

    name: str
    version: int
    stage: Stage
    mlflow_stage: Stage
    changed_outside: bool
    aliases: tuple[str, ...]
    description: str
    run_id: str | None
    created_at: datetime
    model_uri: str
    url: str
    tags: dict[str, str]
    evaluation_score: float | None
    score_improvement: float | None
    data_digest: str | None
    unloadable: str | None = None

    @classmethod
    def of(cls, version: ModelVersion, unloadable: str | None = None) -> Self:
        """From the domain."""
        same = {"name", "version", "stage", "mlflow_stage", "aliases", "description", "run_id", "created_at",
                "model_uri", "url"}  # fmt: skip
        tags = version.tags
        return cls(
            **version.model_dump(include=same),
            changed_outside=version.is_changed_outside,
            tags={name: value for name, value in tags.items() if not name.startswith("dspyui.audit.")},
            evaluation_score=_number(tags, "dspyui.evaluation_score"),
            score_improvement=_number(tags, "dspyui.score_improvement"),
            data_digest=tags.get("dspyui.data_digest"),
            unloadable=unloadable,
        )

    @classmethod
    def listed(cls, found: ListedVersion, language: Language) -> Self:
        """From the service."""
        return cls.of(found.version, found.unloadable.sentence(language) if found.unloadable else None)


class VersionDetail(VersionItem):
    """A version with its audit record, oldest entry first."""

    history: tuple[ChangeItem, ...] = ()
    unreadable_history: tuple[str, ...] = ()

    @classmethod
    def told(cls, version: ModelVersion, language: Language) -> Self:
        """From the domain."""
        return cls(
            **VersionItem.of(version).model_dump(),
            history=tuple(ChangeItem.of(change, language) for change in version.history),
            unreadable_history=version.unreadable_history,
        )


class ModelItem(_Model):
    """A registered model; the three versions are None where nobody is."""

    name: str
    description: str
    tags: dict[str, str]
    url: str
    updated_at: datetime
    aliases: dict[str, int]
    newest: VersionItem | None
    staging: VersionItem | None
    production: VersionItem | None

    @classmethod
    def of(cls, model: RegisteredModel) -> Self:
        """From the domain."""
        held: dict[str, Any] = {
            place: None if version is None else VersionItem.of(version)
            for place, version in (
                ("newest", model.newest), ("staging", model.staging), ("production", model.production),
            )
        }  # fmt: skip
        same = {"name", "description", "tags", "url", "updated_at", "aliases"}
        return cls(**model.model_dump(include=same), **held)


class ModelListResponse(_Model):
    """A page of models."""

    models: tuple[ModelItem, ...]
    next_token: str | None


class ModelResponse(_Model):
    """A model and a page of its versions, newest first."""

    model: ModelItem
    versions: tuple[VersionItem, ...]
    next_token: str | None

    @classmethod
    def of(cls, found: ModelDetail, language: Language) -> Self:
        """From the service."""
        return cls(
            model=ModelItem.of(found.model),
            versions=tuple(VersionItem.listed(version, language) for version in found.versions),
            next_token=found.next_token,
        )


class GateResponse(_Model):
    """What the gate says before a promotion; `word` is None when nothing is compared."""

    mode: PromotionGate
    word: GateWord | None = None
    message: str | None = None
    holder: int | None = None
    refused: bool = False
    needs_confirmation: bool = False
    rows: int = 0
    own_rows: int = 0
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    rows_needed: int | None = None

    @classmethod
    def of(cls, report: GateReport | None, mode: PromotionGate, language: Language) -> Self:
        """From the service."""
        if report is None:
            return cls(mode=mode)
        figures: dict[str, Any] = {}
        if (test := report.test) is not None:
            figures = {
                "difference": test.difference.value,
                "low": test.difference.low,
                "high": test.difference.high,
                "p": test.adjusted,
                "rows_needed": test.rows_needed,
            }
        return cls(
            mode=mode,
            word=report.word,
            message=report.result.sentence(language),
            holder=report.holder,
            refused=report.is_refused,
            needs_confirmation=report.needs_confirmation,
            rows=report.rows,
            own_rows=report.own_rows,
            **figures,
        )


class StageBody(_Model):
    """A change of stage; `confirm` is the model's name, where the gate asks for it.

    `holder` is the version that is in Production, 0 for none: a promotion is refused when it is another by then.
    """

    stage: Stage
    why: str
    confirm: str = ""
    holder: int | None = None


class RollbackBody(_Model):
    """Why the version before is put back; `holder`, the version that leaves, makes the request safe to repeat."""

    why: str
    holder: int | None = None


class AliasBody(_Model):
    """The version that gets the alias."""

    version: int


class DescribeBody(_Model):
    """What is left out stays; a tag that is null is removed."""

    description: str | None = None
    tags: dict[str, str | None] = {}
