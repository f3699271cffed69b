"""Programs: a module bound to a signature, and what an optimizer makes of it."""

import json
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar

from pydantic import ValidationError, model_validator

from dspyui.domain.base import Frozen, ParameterInfo, ParameterValue, checked_parameters
from dspyui.domain.lms import EmbedderSpec, LMRoles, LMSpec
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.signatures import Row, SignatureSpec
from dspyui.errors import BadRequestError

ModuleKind = Literal["predict", "chain_of_thought", "multi_chain_comparison", "best_of_n", "refine"]
# Format 2 added the module's reward, the judge that it may ask, and what KNNFewShot looks its demos up in.
PROGRAM_FORMAT = 2
MAX_PROGRAM_NAME = 100
_Model = TypeVar("_Model", LMSpec, EmbedderSpec)


class ModuleInfo(Frozen):
    """What the form, the check and the record need to know of one module.

    `adds_outputs` are output fields that the module puts before the signature's own, `keeps_names` further names
    that it gives fields of its own inside. `rewards`: it asks a metric that needs no expected value, and wraps
    the module named in its parameter `module`.
    """

    kind: ModuleKind
    label: str
    parameters: tuple[ParameterInfo, ...] = ()
    adds_outputs: tuple[str, ...] = ()
    keeps_names: tuple[str, ...] = ()
    rewards: bool = False


# DSPy has no defaults for `N` and `threshold`; these are those of its documentation.
_ATTEMPTS = (
    ParameterInfo(
        name="module", type="choice", default="chain_of_thought", choices=("predict", "chain_of_thought")
    ),
    ParameterInfo(name="N", type="int", default=3, minimum=1, maximum=100),
    ParameterInfo(name="threshold", type="float", default=1.0, minimum=0, maximum=1),
    ParameterInfo(
        name="fail_count", type="int", default=None, optional=True, minimum=1, maximum=100, advanced=True
    ),
)

MODULES: Mapping[ModuleKind, ModuleInfo] = {
    info.kind: info
    for info in (
        ModuleInfo(kind="predict", label="Predict"),
        ModuleInfo(kind="chain_of_thought", label="ChainOfThought", adds_outputs=("reasoning",)),
        ModuleInfo(
            kind="multi_chain_comparison",
            label="MultiChainComparison",
            parameters=(
                ParameterInfo(name="M", type="int", default=3, minimum=1, maximum=20),
                ParameterInfo(name="temperature", type="float", default=0.7, minimum=0, maximum=2),
            ),
            adds_outputs=("rationale",),
            keeps_names=("reasoning", *(f"reasoning_attempt_{number}" for number in range(1, 21))),
        ),
        ModuleInfo(kind="best_of_n", label="BestOfN", parameters=_ATTEMPTS, rewards=True),
        ModuleInfo(kind="refine", label="Refine", parameters=_ATTEMPTS, keeps_names=("hint_",), rewards=True),
    )
}


class ModuleSpec(Frozen):
    """The kind of module and its parameters; `reward` is the metric that BestOfN and Refine try to please."""

    kind: ModuleKind = "predict"
    params: dict[str, Any] = {}
    reward: MetricSpec | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.resolved()
        label = self.info.label
        if self.reward is None:
            if self.info.rewards:
                raise BadRequestError("module.reward_needed", module=label)
        elif not self.info.rewards:
            raise BadRequestError("module.reward_unused", module=label)
        elif self.reward.info.needs_expected:
            raise BadRequestError("module.reward_expected", module=label, metric=self.reward.info.label)
        return self

    @property
    def info(self) -> ModuleInfo:
        """Its entry in the table."""
        return MODULES[self.kind]

    @property
    def inner(self) -> "ModuleSpec":
        """The module that it wraps; itself when it wraps none."""
        return ModuleSpec(kind=self.resolved()["module"]) if self.info.rewards else self  # type: ignore[arg-type]

    def resolved(self) -> dict[str, ParameterValue]:
        """Every parameter with its value, defaults filled in."""
        return checked_parameters(self.info.label, self.info.parameters, self.params)

    def added_outputs(self) -> tuple[str, ...]:
        """The output fields that come before the signature's own."""
        return self.inner.info.adds_outputs

    def kept_names(self) -> frozenset[str]:
        """All names that no field of the signature may have."""
        return frozenset({*self.added_outputs(), *self.info.keeps_names})


def file_name(name: str, ending: str) -> str:
    """A name for a download: what a file system takes of the program's own name."""
    kept = "".join(char if char.isalnum() or char in "-_. " else "_" for char in name).strip(" .")
    return f"{kept[:100] or 'program'}{ending}"


class ProgramSpec(Frozen):
    """A module bound to a signature. The name is for people: it is shown and recorded, never a path."""

    name: str = "program"
    signature: SignatureSpec
    module: ModuleSpec = ModuleSpec()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.name.strip():
            raise BadRequestError("program.name_empty")
        unprintable = any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in self.name)
        if len(self.name) > MAX_PROGRAM_NAME or unprintable:
            raise BadRequestError("program.name", limit=MAX_PROGRAM_NAME)
        taken = {field.name for field in self.signature.fields} & self.module.kept_names()
        if taken:
            raise BadRequestError(
                "program.field_taken", name=", ".join(sorted(taken)), module=self.module.info.label
            )
        if self.module.reward is not None:
            self.module.reward.check(self.signature)
        return self


class Neighbours(Frozen):
    """What a program compiled by KNNFewShot needs at each call: it looks up the nearest rows and bootstraps on them.

    `rows` are the training rows; `embedder` turns their inputs, and those of each call, into vectors; `metric`
    decides which of the teacher's answers become demos. `teacher` is None when the task LM answers itself. How
    many rows, and how they are bootstrapped, stands in the optimizer's parameters.
    """

    rows: tuple[Row, ...]
    embedder: EmbedderSpec
    metric: MetricSpec
    teacher: LMSpec | None = None


class CompiledProgram(Frozen):
    """A program as kept on disk, in MLflow and in a model version: all data, no pickle.

    `state` is DSPy's own JSON state with every LM removed. `signature_digest` must equal that of
    `spec.signature` before the state is loaded. `lm` names the model it was compiled for, never a key.
    `neighbours` is there when KNNFewShot made it, `judge` when a metric that it asks at each call asks a model,
    `embedder` when such a metric compares meanings. `moved` names the models beside the task LM whose address of
    somebody's own was left out. `versions` are those of dspy, dspyui and python that wrote it.
    """

    format: Literal[1, 2] = PROGRAM_FORMAT
    spec: ProgramSpec
    lm: LMSpec
    optimizer: OptimizerSpec
    state: dict[str, Any]
    signature_digest: str
    neighbours: Neighbours | None = None
    judge: LMSpec | None = None
    embedder: EmbedderSpec | None = None
    moved: tuple[Literal["teacher", "judge", "embedder"], ...] = ()
    versions: dict[str, str] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.signature_digest != self.spec.signature.digest():
            raise BadRequestError("program.digest", name=self.spec.name)
        if self.neighbours is not None and self.optimizer.kind != "knn_few_shot":
            raise BadRequestError("program.neighbours", name=self.spec.name)
        return self

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """The metrics that it asks at each call."""
        asked = (self.spec.module.reward, self.neighbours and self.neighbours.metric)
        return tuple(metric for metric in asked if metric is not None)

    def roles(self, task: LMSpec | None = None) -> LMRoles:
        """The LMs that a prediction needs, with another LM for the task when one is given."""
        neighbours = self.neighbours
        return LMRoles(
            task=task or self.lm,
            teacher=neighbours.teacher if neighbours else None,
            judge=self.judge,
            embedder=neighbours.embedder if neighbours else self.embedder,
        )

    def without_addresses(self) -> Self:
        """The program as it leaves the place it was made at: an address holds a port, and is a fact of that place."""
        roles = self.roles()
        others = {"teacher": roles.teacher, "judge": roles.judge, "embedder": roles.embedder}
        left = tuple(
            name for name, model in others.items() if model and model.api_base and not model.is_local
        )
        return self._at(None, frozenset(others)).model_copy(update={"moved": left})

    def at(self, api_base: str) -> Self:
        """The program with the task LM, and each other model whose address stayed behind, at an address."""
        return self._at(api_base, frozenset(self.moved))

    def _at(self, api_base: str | None, names: frozenset[str]) -> Self:
        def there(name: str, model: _Model | None) -> _Model | None:
            moves = model is not None and (name in names or name == "task")
            return model.model_copy(update={"api_base": api_base}) if moves else model  # type: ignore[union-attr]

        neighbours = self.neighbours and self.neighbours.model_copy(
            update={
                "embedder": there("embedder", self.neighbours.embedder),
                "teacher": there("teacher", self.neighbours.teacher),
            }
        )
        return self.model_copy(
            update={
                "lm": there("task", self.lm),
                "judge": there("judge", self.judge),
                "embedder": there("embedder", self.embedder),
                "neighbours": neighbours,
            }
        )

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str) -> Self:
        """Read a document that came from elsewhere; `where` names the place for the message.

        Raises BadRequestError when it is no program of a format that is known here, or was altered.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as exc:
            first = exc.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "—"
            raise BadRequestError(
                "program.unreadable", where=where, place=place, problem=first["msg"]
            ) from exc

    def to_json(self) -> str:
        """The document, keys sorted, so that equal programs have equal bytes."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=2, sort_keys=True)
