"""What the compile form holds while a person fills it in, and how it becomes a `CompileSpec` and back.

Pure: no page, no service. A draft may be wrong in any way; `draft_problems` says how.
Cells of the rows are kept under the field's key, not its name, so that renaming a field loses nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Self

from dspyui.domain.base import ParameterInfo
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.lms import LOCAL_MODEL
from dspyui.domain.metrics import METRICS, MetricKind
from dspyui.domain.optimizers import OPTIMIZERS, OptimizerKind
from dspyui.domain.programs import MODULES, ModuleKind
from dspyui.domain.providers import key_variables
from dspyui.domain.signatures import FieldType
from dspyui.errors import BadRequestError
from dspyui.services.documents import spec_of

Role = Literal["inputs", "outputs"]
Source = Literal["rows", "upload", "path"]
Dealing = Literal["shares", "column", "files"]
OtherRole = Literal["prompt", "teacher", "judge", "embedder"]
Cells = dict[str, str]
OTHER_ROLES: Final[tuple[OtherRole, ...]] = ("prompt", "teacher", "judge", "embedder")
# Under this key a row of the grid says which split it is in; no field has such a key.
SPLIT_CELL: Final = "split"


@dataclass(slots=True)
class FieldDraft:
    """One field. `choices` is what the person typed: a line or a comma between two."""

    key: str
    name: str = ""
    type: FieldType = "str"
    choices: str = ""
    description: str = ""

    def choice_list(self) -> list[str]:
        """The choices, without blanks."""
        parts = self.choices.replace("，", ",").replace("\n", ",").split(",")
        return [part.strip() for part in parts if part.strip()]

    def document(self) -> dict[str, Any]:
        """As in a spec."""
        choices = self.choice_list() if self.type == "choice" else []
        return {"name": self.name, "type": self.type, "choices": choices, "description": self.description}


@dataclass(slots=True)
class LMDraft:
    """One language model. Address and key count for a model that is not the bundled one.

    Of the model that makes vectors (the embedder) only its name, address and key count.
    """

    model: str = LOCAL_MODEL
    api_base: str = ""
    api_key_env: str = ""
    temperature: float | None = None
    max_tokens: int | None = None
    cache: bool = True
    num_retries: int = 3
    timeout: float = 180

    @property
    def is_local(self) -> bool:
        """Whether it is the bundled model, as far as can be told while it is typed."""
        return self.model.strip() == LOCAL_MODEL

    @property
    def is_hosted(self) -> bool:
        """Whether a provider runs it, and mostly wants to be paid."""
        return bool(self.model.strip()) and not self.is_local and not self.api_base.strip()

    def key_variable(self) -> str | None:
        """The environment variable that holds the key; None when there is no telling.

        A provider's key never goes to an address of the person's own.
        """
        if self.is_local:
            return None
        variables = key_variables(self.model.strip(), self.api_base.strip(), self.api_key_env.strip())
        return variables[0] if variables else None

    def document(self) -> dict[str, Any]:
        """As in a spec."""
        return {
            **self.embedder_document(),
            "temperature": self.temperature,
            "max_tokens": whole(self.max_tokens),
            "cache": self.cache,
            "num_retries": whole(self.num_retries),
            "timeout": self.timeout,
        }

    def embedder_document(self) -> dict[str, Any]:
        """The part of it that an embedder has."""
        return {
            "model": self.model.strip(),
            "api_base": None if self.is_local else self.api_base.strip() or None,
            "api_key_env": None if self.is_local else self.api_key_env.strip() or None,
        }


@dataclass(slots=True)
class FileDraft:
    """A file that was chosen: a kept data set, which goes first, or a path."""

    path: str = ""
    upload: str = ""
    upload_name: str = ""

    def document(self) -> dict[str, str] | None:
        """As in a spec; None while nothing is chosen."""
        if self.upload:
            return {"upload": self.upload}
        return {"path": self.path.strip()} if self.path.strip() else None


@dataclass(slots=True)
class DataDraft:
    """Where the rows come from, and how they are split.

    `columns` maps a field's key to the column it is taken from; empty: it was left open on purpose.
    """

    source: Source = "rows"
    path: str = ""
    upload: str = ""
    upload_name: str = ""
    rows: list[Cells] = field(default_factory=list)
    train: float = 0.5
    validation: float = 0.2
    test: float = 0.3
    seed: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    dealing: Dealing = "shares"
    split_column: str = ""
    validation_file: FileDraft = field(default_factory=FileDraft)
    test_file: FileDraft = field(default_factory=FileDraft)
    allow_shared: bool = False

    @classmethod
    def from_store(cls, stored: Mapping[str, Any]) -> Self:
        """As it was kept. Raises TypeError when it is from another version."""
        files = {
            name: FileDraft(**stored[name]) for name in ("validation_file", "test_file") if name in stored
        }
        return cls(**{**stored, **files})

    def own_files(self) -> dict[str, dict[str, str]]:
        """The files for validation and test as in a spec. Raises BadRequestError while none is chosen."""
        chosen = {"validation": self.validation_file.document(), "test": self.test_file.document()}
        found = {name: document for name, document in chosen.items() if document is not None}
        if not found:
            raise BadRequestError("data.no_split_file")
        return found


@dataclass(slots=True)
class RewardDraft:
    """The metric that BestOfN and Refine try to please. Fields and weights are kept under the fields' keys; no field
    means all of them."""

    metric: MetricKind = "regex"
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)

    def own_params(self) -> dict[str, Any]:
        """Those of the chosen metric that were touched, to be written into."""
        return self.params.setdefault(self.metric, {})

    def document(self, outputs: Sequence[FieldDraft]) -> dict[str, Any]:
        """As in a spec."""
        info = METRICS[self.metric]
        document = _kind_document(self.metric, info.parameters, self.own_params())
        if info.score is not None:
            chosen = [made for made in outputs if made.key in self.fields]
            document["fields"] = [made.name for made in chosen]
            scored = chosen or outputs
            document["weights"] = {
                made.name: self.weights[made.key] for made in scored if made.key in self.weights
            }
        return document


@dataclass(slots=True)
class CompileDraft:
    """The whole form. Parameters are kept for each optimizer and metric: looking at another one loses nothing.

    The metric's fields and weights are kept under the fields' keys. A role that is None is played by the task's
    model; `embedder` None is nobody.
    """

    name: str = ""
    instructions: str = ""
    inputs: list[FieldDraft] = field(default_factory=list)
    outputs: list[FieldDraft] = field(default_factory=list)
    module: ModuleKind = "predict"
    module_params: dict[str, dict[str, Any]] = field(default_factory=dict)
    reward: RewardDraft = field(default_factory=RewardDraft)
    optimizer: OptimizerKind = "bootstrap_few_shot"
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    metric: MetricKind = "exact_match"
    metric_fields: list[str] = field(default_factory=list)
    metric_params: dict[str, dict[str, Any]] = field(default_factory=dict)
    metric_weights: dict[str, Any] = field(default_factory=dict)
    data: DataDraft = field(default_factory=DataDraft)
    task: LMDraft = field(default_factory=LMDraft)
    prompt: LMDraft | None = None
    teacher: LMDraft | None = None
    judge: LMDraft | None = None
    embedder: LMDraft | None = None
    seed: int = 0
    threads: int = 4
    repeats: int = 1
    max_errors: int = 10
    next_key: int = 1

    def side(self, role: Role) -> list[FieldDraft]:
        """The fields of one side."""
        return self.inputs if role == "inputs" else self.outputs

    def all_fields(self) -> list[FieldDraft]:
        """Inputs, then outputs."""
        return [*self.inputs, *self.outputs]

    def new_field(self, **values: Any) -> FieldDraft:
        """A field with a key of its own, not yet on a side."""
        made = FieldDraft(key=f"f{self.next_key}", **values)
        self.next_key += 1
        return made

    def remove_field(self, role: Role, made: FieldDraft) -> None:
        """Take a field out; its cells and its place in the metric go with it."""
        self.side(role).remove(made)
        self.metric_fields = [key for key in self.metric_fields if key != made.key]
        self.metric_weights.pop(made.key, None)
        self.data.columns.pop(made.key, None)
        self.reward.fields = [key for key in self.reward.fields if key != made.key]
        self.reward.weights.pop(made.key, None)
        for row in self.data.rows:
            row.pop(made.key, None)

    def move_field(self, role: Role, made: FieldDraft, step: int) -> None:
        """Move a field up (−1) or down (1); at the end it stays."""
        side = self.side(role)
        index = side.index(made)
        target = index + step
        if 0 <= target < len(side):
            side[index], side[target] = side[target], side[index]

    def own_optimizer_params(self) -> dict[str, Any]:
        """Those that were touched, to be written into; a form begins with what runs."""
        return self.params.setdefault(self.optimizer, dict(OPTIMIZERS[self.optimizer].begins_with))

    def own_module_params(self) -> dict[str, Any]:
        """The module's parameters that were touched, to be written into."""
        return self.module_params.setdefault(self.module, {})

    def module_document(self) -> dict[str, Any]:
        """The module as in a spec."""
        info = MODULES[self.module]
        document = _kind_document(self.module, info.parameters, self.own_module_params())
        if info.rewards:
            document["reward"] = self.reward.document(self.outputs)
        return document

    def own_metric_params(self) -> dict[str, Any]:
        """The metric's parameters that were touched, to be written into."""
        return self.metric_params.setdefault(self.metric, {})

    def signature_document(self) -> dict[str, Any]:
        """The signature as in a spec."""
        return {
            "instructions": self.instructions,
            "inputs": [made.document() for made in self.inputs],
            "outputs": [made.document() for made in self.outputs],
        }

    def program_document(self) -> dict[str, Any]:
        """The program as in a spec."""
        return {
            "name": self.name.strip(),
            "signature": self.signature_document(),
            "module": self.module_document(),
        }

    def metric_document(self) -> dict[str, Any]:
        """The metric as in a spec; all output fields are written as none named."""
        info = METRICS[self.metric]
        document = _kind_document(self.metric, info.parameters, self.own_metric_params())
        if info.score is None:
            return document
        chosen = [made for made in self.outputs if made.key in self.metric_fields]
        everything = len(chosen) == len(self.outputs)
        document["fields"] = [] if everything else [made.name for made in chosen]
        document["weights"] = {
            made.name: self.metric_weights[made.key] for made in chosen if made.key in self.metric_weights
        }
        return document

    def optimizer_document(self) -> dict[str, Any]:
        """The optimizer as in a spec."""
        infos = OPTIMIZERS[self.optimizer].parameters
        return _kind_document(self.optimizer, infos, self.own_optimizer_params())

    def split_document(self) -> dict[str, Any]:
        """The split as in a spec."""
        data = self.data
        return {
            "train": data.train,
            "validation": data.validation,
            "test": data.test,
            "seed": whole(data.seed),
        }

    def data_document(self) -> dict[str, Any]:
        """The data as in a spec. Raises BadRequestError while a file, or the column of splits, is not chosen."""
        data = self.data
        made: dict[str, Any] = {"split": self.split_document(), "allow_shared": data.allow_shared}
        if data.source == "rows":
            made["rows"] = self.row_documents()
        else:
            made[data.source] = data.path.strip() if data.source == "path" else data.upload
            if not made[data.source]:
                raise BadRequestError("data.no_file")
            made["columns"] = {
                field.name: data.columns[field.key]
                for field in self.all_fields()
                if data.columns.get(field.key)
            }
        if data.dealing == "files":
            made |= data.own_files()
        if data.dealing == "column":
            made["split_column"] = self.split_column_name()
        return made

    def split_column_name(self) -> str:
        """The column of splits; the grid's own has a name that no field has."""
        name = self.data.split_column.strip()
        if self.data.source != "rows":
            if not name:
                raise BadRequestError("data.no_split_column")
            return name
        name = name or SPLIT_CELL
        taken = {made.name for made in self.all_fields()}
        return f"{name}_" if name in taken else name

    def row_documents(self) -> list[dict[str, str]]:
        """The grid's rows by field name; rows without any text are left out."""
        named = [(made.key, made.name) for made in self.all_fields()]
        asked = [(SPLIT_CELL, self.split_column_name())] if self.data.dealing == "column" else []
        return [
            {name: row.get(key, "") for key, name in [*named, *asked]}
            for row in self.data.rows
            if any(row.get(key, "").strip() for key, _ in named)
        ]

    def lms_document(self) -> dict[str, Any]:
        """The language models as in a spec."""
        others = {role: lm for role in OTHER_ROLES if (lm := self.role(role)) is not None}
        return {
            "task": self.task.document(),
            **{
                role: lm.embedder_document() if role == "embedder" else lm.document()
                for role, lm in others.items()
            },
        }

    def role(self, role: OtherRole) -> LMDraft | None:
        """The model of a role beside the task."""
        return getattr(self, role)

    def document(self) -> dict[str, Any]:
        """The whole request as in a spec file."""
        return {
            "program": self.program_document(),
            "lms": self.lms_document(),
            "optimizer": self.optimizer_document(),
            "metric": self.metric_document(),
            "data": self.data_document(),
            "seed": whole(self.seed),
            "threads": whole(self.threads),
            "repeats": whole(self.repeats),
            "max_errors": whole(self.max_errors),
        }

    def to_spec(self) -> CompileSpec:
        """The request. Raises BadRequestError for the first thing that is wrong."""
        return spec_of(self.document())

    def to_store(self) -> dict[str, Any]:
        """The draft as plain data, for the visitor's storage."""
        return asdict(self)


def whole(value: Any) -> Any:
    """Number inputs give 4.0 for 4; anything that is no whole number is left for the check to refuse."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(info: ParameterInfo, value: Any) -> Any:
    return whole(value) if info.type == "int" else value


def _kind_document(kind: str, infos: Sequence[ParameterInfo], touched: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer, a module or a metric with all its parameters, as in a spec."""
    given = filled(infos, touched)
    return {"kind": kind, "params": {info.name: _number(info, given[info.name]) for info in infos}}


def filled(infos: Sequence[ParameterInfo], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter with its value or its default."""
    return {info.name: given.get(info.name, info.default) for info in infos}
