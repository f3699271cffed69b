"""Registered models as people handle them: list, open, describe, promote, roll back, alias, delete."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from dspyui.domain.base import Fault, Frozen
from dspyui.domain.promotions import GateReport, previous_production
from dspyui.domain.registry import (
    PAGE_MODELS,
    ModelPage,
    ModelQuery,
    ModelRegistry,
    ModelVersion,
    RegisteredModel,
    Stage,
    StageChange,
    check_alias,
    check_description,
    check_reason,
    check_tag,
)
from dspyui.errors import ConflictError, NotFoundError
from dspyui.i18n import Text
from dspyui.services.gate import GateService

# Versions of other tools are looked into one by one.
_LOOKS_AT_ONCE = 8


class ListedVersion(Frozen):
    """A version of the list; `unloadable` says why its program cannot be loaded here."""

    version: ModelVersion
    unloadable: Fault | None = None


class ModelDetail(Frozen):
    """A model with a page of its versions, newest first."""

    model: RegisteredModel
    versions: tuple[ListedVersion, ...]
    next_token: str | None = None


class ModelService:
    """The registry in MLflow. Every method raises UnavailableError when the server does not answer."""

    def __init__(self, registry: ModelRegistry, gate: GateService) -> None:
        self._registry = registry
        self._gate = gate

    def page(self, query: ModelQuery, token: str | None = None) -> ModelPage:
        """A page of models. Raises BadRequestError for a page that is none."""
        return self._registry.page(query, token)

    def detail(
        self, name: str, token: str | None = None, *, size: int = PAGE_MODELS, look: bool = True
    ) -> ModelDetail:
        """One model and a page of its versions; `look` into those of other programs, which takes seconds at first.

        Raises NotFoundError, BadRequestError for a page that is none.
        """
        model = self._registry.get_model(name)
        found = self._registry.version_page(name, token, size=size)
        why = self.look(found.versions) if look else {}
        return ModelDetail(
            model=model,
            versions=tuple(
                ListedVersion(version=version, unloadable=why.get(version.version))
                for version in found.versions
            ),
            next_token=found.next_token,
        )

    def look(self, versions: Sequence[ModelVersion]) -> Mapping[int, Fault | None]:
        """Why the programs of those that other programs made cannot be loaded here, by number; None for one that can.

        What was found out is remembered by the registry.
        """
        foreign = [version for version in versions if not version.is_ours]
        with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
            found = pool.map(self._registry.unloadable, foreign)
            return {version.version: fault for version, fault in zip(foreign, found, strict=True)}

    def get(self, name: str, version: int) -> ModelVersion:
        """Raises NotFoundError."""
        return self._registry.get_version(name, version)

    def gate(self, name: str, version: int) -> GateReport | None:
        """What the gate says of a promotion to Production; None when nothing is compared. Raises NotFoundError."""
        return self._gate.report(self._registry.get_version(name, version))

    def move(
        self,
        name: str,
        version: int,
        stage: Stage,
        *,
        who: str,
        why: str,
        confirm: str = "",
        holder: int | None = None,
    ) -> ModelVersion:
        """Change a version's stage. `confirm` is the model's name where the gate asks for it.

        `holder` is who was in Production when somebody made up his mind (0: nobody), where that matters to him.
        Raises BadRequestError without a reason, NotFoundError, and ConflictError when the gate does not let it through,
        or when another version than `holder` is in Production.
        """
        reason = check_reason(why)
        record = None
        if stage == "Production":
            self._check_holder(name, holder)
            record = self._gate.pass_through(self.gate(name, version), confirm)
        return self._registry.set_stage(name, version, stage, who=who, why=reason, gate=record)

    def _check_holder(self, name: str, wanted: int | None) -> None:
        found = self._holder(name) if wanted is not None else None
        if wanted is None or wanted == (found or 0):
            return
        if found is None:
            raise ConflictError("registry.holder_left", name=name, version=wanted)
        raise ConflictError("registry.other_holder", name=name, version=found)

    def rollback_target(self, name: str) -> int | None:
        """The version that a rollback would put into Production; None when there was none before."""
        return self._before(name, self._holder(name))

    def roll_back(self, name: str, *, who: str, why: str, holder: int | None = None) -> ModelVersion:
        """Put the version back that was in Production before. The gate is not asked: it was good enough once.

        With `holder`, the version that is to leave Production, it can be repeated: it does not go a step further.
        Raises BadRequestError without a reason, NotFoundError when there is none, ConflictError when another version
        than `holder` is in Production.
        """
        reason = check_reason(why)
        found = self._holder(name)
        if holder not in {None, found}:
            raise ConflictError("registry.no_holder", name=name, version=holder)
        target = self._before(name, found)
        if target is None:
            raise NotFoundError("registry.no_previous", name=name)
        return self._registry.set_stage(name, target, "Production", who=who, why=reason, kind="rollback")

    def _holder(self, name: str) -> int | None:
        held = self._registry.get_model(name).production
        return None if held is None else held.version

    def _before(self, name: str, holder: int | None) -> int | None:
        # Only where nothing is marked, by an earlier DSPyUI, is every record read, of which there may be a thousand.
        versions = self._registry.search_versions(name, promoted=True) or self._registry.search_versions(name)
        return previous_production(versions, holder)

    def set_alias(self, name: str, alias: str, version: int) -> ModelVersion:
        """Raises BadRequestError for an alias that cannot be, NotFoundError."""
        return self._registry.set_alias(name, check_alias(alias), version)

    def delete_alias(self, name: str, alias: str) -> None:
        """Raises BadRequestError for an alias that is a stage's, NotFoundError."""
        self._registry.delete_alias(name, check_alias(alias))

    def describe(self, name: str, version: int | None, description: str) -> None:
        """A version, or with None the model. Raises BadRequestError, NotFoundError."""
        self._registry.describe(name, version, check_description(description))

    def set_tags(self, name: str, version: int | None, tags: Mapping[str, str | None]) -> None:
        """Set tags, or with None take them away. Nothing is set when one is wrong.

        Raises BadRequestError, NotFoundError.
        """
        for tag, value in tags.items():
            check_tag(tag, value)
        self._registry.set_tags(name, version, tags)

    def change(
        self, name: str, version: int | None, description: str | None, tags: Mapping[str, str | None]
    ) -> None:
        """Both at once; a description of None stays. Nothing is changed when a part is wrong.

        Raises BadRequestError, NotFoundError.
        """
        if description is not None:
            check_description(description)
        self.set_tags(name, version, tags)
        if description is not None:
            self.describe(name, version, description)

    def delete_version(self, name: str, version: int) -> None:
        """Raises ConflictError for one in Production or with an alias, NotFoundError."""
        found = self._registry.get_version(name, version)
        if "Production" in {found.stage, found.mlflow_stage}:
            raise ConflictError("registry.in_production", name=name, version=version)
        if found.aliases:
            raise ConflictError(
                "registry.has_alias", name=name, version=version, aliases=", ".join(found.aliases)
            )
        self._registry.delete_version(name, version)

    def delete_model(self, name: str) -> None:
        """Raises ConflictError when a version of it is in Production or has an alias, NotFoundError."""
        found = self._registry.get_model(name)
        if found.production is not None:
            number = found.production.version
            raise ConflictError("registry.model_in_production", name=name, version=number)
        if found.aliases:
            held = ", ".join(f"{alias} → {number}" for alias, number in sorted(found.aliases.items()))
            raise ConflictError("registry.model_has_alias", name=name, aliases=held)
        self._registry.delete_model(name)


def reasons(change: StageChange, text: Text) -> tuple[str, ...]:
    """Why a change was made, with what the gate said and what was typed, in the language of whoever reads it."""
    if change.by is not None:
        replaced = text("ui.stage.replaced", version=change.by)
        # Earlier DSPyUIs gave no other reason than that.
        is_told = not change.why or change.why == f"replaced by version {change.by}"
        return (replaced,) if is_told else (replaced, change.why)
    said = [text("ui.stage.rolled_back")] if change.kind == "rollback" else []
    said += [change.why] if change.why else []
    if change.gate is not None:
        said.append(change.gate.result.sentence(text.language))
        if change.gate.confirmed:
            said.append(text("ui.stage.was_confirmed", typed=change.gate.confirmed))
    return tuple(said)
