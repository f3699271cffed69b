"""Stages in MLflow's registry: MLflow's own stage (deprecated there), an alias, and an audit record in tags.

The alias decides. MLflow has no lock, and a change of stage takes several requests; but an alias stands at one version,
whoever sets it last. So everybody sets the alias first, and afterwards makes the stages agree with the alias as it is
then (`settle`), until a look finds that they do. Of two that promote at once the one that set the alias last stays.
"""

import json
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from dspyui.domain.registry import STAGE_ALIASES, STAGES, ChangeKind, GateRecord, Stage, StageChange
from dspyui.errors import ConflictError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion
    from mlflow.entities.model_registry import RegisteredModel as MlflowModel

# One tag an entry, with a name of its own: two that write at once do not overwrite each other.
AUDIT_TAG: Final = "dspyui.audit."
# By these MLflow finds, among any number of versions, those that were ever in a stage of which one alone is.
MARKS: Final[Mapping[Stage, str]] = {"Production": "dspyui.was_production", "Staging": "dspyui.was_staging"}
_MAX_WHY: Final = 2000
# How often the stages are made to agree with the alias before it is said that others keep changing it.
_LOOKS: Final = 20
_TRIES: Final = 4


def mlflow_stage(version: "MlflowVersion") -> Stage:
    """MLflow's own stage; one that is not known counts as none."""
    found: list[Stage] = [stage for stage in STAGES if stage == version.current_stage]
    return found[0] if found else "None"


def stage_of(version: "MlflowVersion", aliases: Mapping[str, int]) -> Stage:
    """The stage that counts, from all aliases of the model: the alias's, else MLflow's own.

    A version whose stage's alias stands at another one is in no stage.
    """
    for stage in ("Production", "Staging"):
        if aliases.get(STAGE_ALIASES[stage]) == int(version.version):
            return stage
    found = mlflow_stage(version)
    return "None" if STAGE_ALIASES.get(found) in aliases else found


def history_of(version: "MlflowVersion") -> tuple[tuple[StageChange, ...], tuple[str, ...]]:
    """The audit record in the order of time, and the names of audit tags that hold something else."""
    changes: list[StageChange] = []
    unreadable: list[str] = []
    for name, value in sorted(version.tags.items()):
        if name.startswith(AUDIT_TAG):
            try:
                changes.append(_to_change(json.loads(value)))
            except (ValueError, KeyError, TypeError):  # pydantic's errors are ValueErrors
                unreadable.append(name)
    return tuple(sorted(changes, key=lambda change: change.at)), tuple(unreadable)


def _to_change(entry: Mapping[str, Any]) -> StageChange:
    at = datetime.fromisoformat(entry["at"])
    return StageChange(
        who=entry["who"],
        at=at if at.tzinfo else at.replace(tzinfo=UTC),
        from_stage=entry["from"],
        to_stage=entry["to"],
        why=entry.get("why", ""),
        kind=entry.get("kind", "move"),
        by=entry.get("by"),
        gate=_to_gate(entry.get("gate")),
    )


def _to_gate(entry: Any) -> GateRecord | None:
    try:
        return None if entry is None else GateRecord.model_validate(entry)
    except ValidationError:
        # Of a later DSPyUI; who, when and why are still worth reading.
        return None


def insisted(call: Callable[..., object], *arguments: str) -> None:
    """Set an alias or a tag, which can be repeated.

    MLflow looks whether there is one and else inserts it. When two do that at once its database refuses one of them,
    which MLflow tells as a bad request; the next time the alias or the tag is there.
    """
    from mlflow.exceptions import MlflowException

    for _ in range(_TRIES - 1):
        try:
            call(*arguments)
        except MlflowException as exc:
            if exc.error_code != "BAD_REQUEST":
                raise
        else:
            return
    call(*arguments)


class StageMove:
    """One person's change of stage of one version."""

    def __init__(self, client: "MlflowClient", name: str, *, who: str, why: str, kind: ChangeKind) -> None:
        self._client = client
        self._name = name
        self._who = who
        self._why = why
        self._kind: ChangeKind = kind

    def to(self, number: int, stage: Stage, gate: GateRecord | None) -> None:
        """Do it; it can be repeated after it failed half-way, and then completes.

        Raises ConflictError when others keep changing the stage meanwhile.
        """
        model = self._client.get_registered_model(self._name)
        aliases = numbers(model)
        version = self._client.get_model_version(self._name, str(number))
        before, alias = stage_of(version, aliases), STAGE_ALIASES.get(stage)
        left = [held for held in STAGE_ALIASES.values() if held != alias and aliases.get(held) == number]
        if alias is not None and aliases.get(alias) != number:
            insisted(self._client.set_registered_model_alias, self._name, alias, str(number))
        was_held = {held: aliases[name] for held, name in STAGE_ALIASES.items() if name in aliases}
        self._note(version, before, stage, gate)
        for held in left:
            self._client.delete_registered_model_alias(self._name, held)
        self._make_room(model, number, stage)
        self._transition(version, stage)
        for touched, held in STAGE_ALIASES.items():
            if touched in {stage, mlflow_stage(version)} or held in left:
                known = {number, was_held.get(touched, number)}
                self._settle(touched, known, wanted=number if touched == stage else None)

    def _note(self, version: "MlflowVersion", before: Stage, stage: Stage, gate: GateRecord | None) -> None:
        history, _ = history_of(version)
        last = history[-1].to_stage if history else "None"
        if before == stage and last == stage:
            return
        change = StageChange(
            who=self._who,
            at=datetime.now(UTC),
            # Where an earlier try got as far as the alias, the record still tells where it came from.
            from_stage=last if before == stage else before,
            to_stage=stage,
            why=self._why[:_MAX_WHY],
            kind=self._kind,
            gate=gate,
        )
        self._write(version, change, secrets.token_hex(4))

    def _write(self, version: "MlflowVersion", change: StageChange, own: str) -> None:
        # Before it is in the stage: whoever looks for those that are must find it.
        for stage, mark in MARKS.items():
            if stage in {change.from_stage, change.to_stage} and version.tags.get(mark) != "true":
                insisted(self._client.set_model_version_tag, self._name, version.version, mark, "true")
        entry: dict[str, Any] = {
            "who": change.who,
            "at": change.at.isoformat(timespec="milliseconds"),
            "from": change.from_stage,
            "to": change.to_stage,
            "why": change.why,
        }
        if change.kind != "move":
            entry["kind"] = change.kind
        if change.by is not None:
            entry["by"] = change.by
        if change.gate is not None:
            entry["gate"] = change.gate.model_dump(mode="json")
        tag = f"{AUDIT_TAG}{own}"
        text = json.dumps(entry, ensure_ascii=False)
        insisted(self._client.set_model_version_tag, self._name, version.version, tag, text)

    def _transition(self, version: "MlflowVersion", stage: Stage) -> None:
        # Stages are deprecated in MLflow, and kept here until they go; the alias is beside them.
        warnings.filterwarnings("ignore", message=".*transition_model_version_stage", category=FutureWarning)
        if version.current_stage != stage:
            self._client.transition_model_version_stage(self._name, version.version, stage)

    def _settle(self, stage: Stage, known: Set[int], *, wanted: int | None) -> None:
        """Make MLflow's stages agree with the alias: its holder alone is in the stage. `known` may be there."""
        alias = STAGE_ALIASES[stage]
        for _ in range(_LOOKS):
            # In this order: who is found in the stage has set the alias before, so the alias that is read now is
            # that one's, or that of somebody who came later.
            inside = self._inside(stage, known)
            held = aliases_of(self._client, self._name).get(alias)
            if held is None:
                if not inside:
                    return
                # Whoever left the stage took the alias with it after another had got it.
                first = str(inside[0].version if wanted is None else wanted)
                insisted(self._client.set_registered_model_alias, self._name, alias, first)
                continue
            holder = self._client.get_model_version(self._name, str(held))
            others = [version for version in inside if version.version != holder.version]
            if not others and mlflow_stage(holder) == stage:
                return
            for other in others:
                self._replace(other, holder, stage)
            self._transition(holder, stage)
            if self._stands(stage):
                return
        raise ConflictError("registry.contested", name=self._name, stage=stage)

    def _make_room(self, model: "MlflowModel", number: int, stage: Stage) -> None:
        """Archive those that other programs put into the stage: nothing marks them.

        `model` as it was before this version came there: MLflow tells the newest of a stage, and this may be newer.
        """
        mark = MARKS.get(stage)
        if mark is None:
            return
        first = newest([version for version in model.latest_versions or () if mlflow_stage(version) == stage])
        if first is None or int(first.version) == number or mark in first.tags:
            return
        holder = self._client.get_model_version(self._name, str(number))
        for version in search(self._client, self._name):
            if (
                mlflow_stage(version) == stage
                and version.version != holder.version
                and mark not in version.tags
            ):
                self._replace(version, holder, stage)

    def _inside(self, stage: Stage, known: Set[int]) -> "list[MlflowVersion]":
        """Who is in the stage by MLflow's own word.

        Of a thousand versions few are read: those that were ever there as far as DSPyUI knows, those that are
        concerned, and the newest. One that another program put beside a newer one of ours stays, and shows as
        changed outside.
        """
        found = {
            int(version.version): version for version in search(self._client, self._name, mark=MARKS[stage])
        }
        for number in known - found.keys():
            found[number] = self._client.get_model_version(self._name, str(number))
        for version in self._client.get_registered_model(self._name).latest_versions or ():
            found.setdefault(int(version.version), version)
        return [version for version in found.values() if mlflow_stage(version) == stage]

    def _stands(self, stage: Stage) -> bool:
        """Whether the alias's holder is in the stage still: one who came meanwhile may have been sent away."""
        held = aliases_of(self._client, self._name).get(STAGE_ALIASES[stage])
        if held is None:
            return False
        return mlflow_stage(self._client.get_model_version(self._name, str(held))) == stage

    def _replace(self, version: "MlflowVersion", holder: "MlflowVersion", stage: Stage) -> None:
        history, _ = history_of(holder)
        came = [change for change in history if change.to_stage == stage]
        change = StageChange(
            who=came[-1].who if came else self._who,
            at=datetime.now(UTC),
            from_stage=stage,
            to_stage="Archived",
            # Whoever looks at the version that went asks for the reason too, and most of all after a rollback.
            why=came[-1].why if came else "",
            kind="replaced",
            by=int(holder.version),
        )
        # The same tag, should two make room for the same holder at once.
        since = f"{came[-1].at:%Y%m%d%H%M%S%f}" if came else secrets.token_hex(4)
        # Before it leaves the stage: a repetition would not find it there any more, and the entry would be missing.
        self._write(version, change, f"replaced-{holder.version}-{since}")
        self._transition(version, "Archived")


def aliases_of(client: "MlflowClient", name: str) -> dict[str, int]:
    """Every alias of a model, with the number of the version it stands at."""
    return numbers(client.get_registered_model(name))


def numbers(model: "MlflowModel") -> dict[str, int]:
    """The same of a model that is at hand."""
    return {alias: int(number) for alias, number in model.aliases.items()}


def search(
    client: "MlflowClient", name: str | None, *, run_id: str | None = None, mark: str | None = None
) -> "list[MlflowVersion]":
    """Versions of a model, or of all, newest first; `mark`: that have this one of `MARKS`.

    MLflow tells no aliases with these.
    """
    parts = [f"name = {quoted(name)}"] if name is not None else []
    parts += [f"tags.`{mark}` = 'true'"] if mark is not None else []
    parts += [f"run_id = '{run_id}'"] if run_id is not None else []
    found: list[MlflowVersion] = []
    token = None
    while True:
        page: Any = client.search_model_versions(
            " AND ".join(parts) or None, max_results=1000, page_token=token
        )
        found += page
        token = page.token
        if not token:
            break
    # MLflow hands versions over as text; "10" sorts before "9".
    return sorted(found, key=lambda v: (v.creation_timestamp, int(v.version)), reverse=True)


def quoted(name: str) -> str:
    """A name in MLflow's filter language."""
    # It has no escapes; a name with both kinds of quotes is none that it can ask for.
    return f"'{name}'" if "'" not in name else f'"{name}"'


def newest(versions: "Sequence[MlflowVersion]") -> "MlflowVersion | None":
    """The one with the highest number."""
    return max(versions, key=lambda version: int(version.version), default=None)
