"""A compile: what is asked for (`CompileSpec`), how it goes (`Progress`), and what came of it (`CompileResult`)."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from dspyui.domain.base import Fault, Frozen, Notice
from dspyui.domain.datasets import DataSpec
from dspyui.domain.intervals import Difference, paired_difference
from dspyui.domain.lms import LMRoles
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import ProgramSpec
from dspyui.domain.signatures import Row
from dspyui.errors import BadRequestError


class CompileSpec(Frozen):
    """The whole request, as one YAML or JSON document. `threads` is the number of LM calls at once.

    `repeats` is how often each test row is asked in the final scoring of both programs; its score is the mean.
    `max_errors` is how many answers or scores may be missing, because a model failed, before the compile is stopped.
    `digests` is written when a job is made of it, and asks for nothing: the SHA-256 of what it names but does not
    hold, by name (`data`: the parsed rows of its files; `metrics/NAME.py`: a metric of one's own), so that a change
    can be told when it is loaded again.
    """

    program: ProgramSpec
    lms: LMRoles = LMRoles()
    optimizer: OptimizerSpec = OptimizerSpec()
    metric: MetricSpec = MetricSpec()
    data: DataSpec
    seed: int = Field(default=0, ge=0, lt=2**32)
    threads: int = Field(default=4, ge=1, le=256)
    repeats: int = Field(default=1, ge=1, le=20)
    max_errors: int = Field(default=10, ge=0, le=1_000_000)
    digests: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.metric.check(self.program.signature)
        if self.metric.info.needs == "embedder" and self.lms.embedder is None:
            raise BadRequestError("metric.no_embedder")
        if self.optimizer.info.needs_train and not self.data.has_train:
            raise BadRequestError("data.split_train", optimizer=self.optimizer.info.label)
        if self.optimizer.info.needs_embedder and self.lms.embedder is None:
            raise BadRequestError("optimizer.embedder", optimizer=self.optimizer.info.label)
        return self

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """Every metric that it asks: the one that scores, and the program's reward."""
        reward = self.program.module.reward
        return (self.metric,) if reward is None else (self.metric, reward)

    def portable(self) -> Self:
        """The spec as it leaves this machine: of a path only the file's name, of the folders above it nothing."""
        return self.model_copy(update={"data": self.data.portable()})


class Usage(Frozen):
    """What was asked of language models, and apart from it of an embedder. A cache hit is no call and has no tokens.

    `embedding_tokens` are those that the embedder's server tells of; some tell nothing. `cost` is an estimate in US
    dollars of both, by the providers' listed prices; None as soon as the price of any call is not known. The bundled
    model costs 0.0, and so do replies from the cache.
    """

    lm_calls: int = 0
    lm_cache_hits: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    embedding_calls: int = 0
    embedding_tokens: int = 0
    cost: float | None = None

    @property
    def total_tokens(self) -> int:
        """Input and output of the language models together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            lm_calls=self.lm_calls + other.lm_calls,
            lm_cache_hits=self.lm_cache_hits + other.lm_cache_hits,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            embedding_calls=self.embedding_calls + other.embedding_calls,
            embedding_tokens=self.embedding_tokens + other.embedding_tokens,
            cost=_sum_costs(self, other),
        )


def _sum_costs(one: Usage, other: Usage) -> float | None:
    # Where nothing was asked, nothing was paid.
    costs = [used.cost if used.cost is not None or _asked(used) else 0.0 for used in (one, other)]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _asked(used: Usage) -> bool:
    return used.lm_calls > 0 or used.embedding_calls > 0


class ChatMessage(Frozen):
    """One message of a prompt as it was sent."""

    role: str
    content: str


def prompt_text(prompt: Sequence[ChatMessage]) -> str:
    """A prompt as a person reads it: each message under its role."""
    return "\n\n".join(f"[{message.role}]\n{message.content}" for message in prompt)


class RowResult(Frozen):
    """One row's outcome.

    `predicted` is None and `error` says why when the reply could not be read, `failure` when there was none: either
    scores 0.0. `problems` are scores that could not be made; `score` is None when there is none at all, and the row
    then counts for neither program. With repeats, `by_field` holds each field's mean and `score` the mean of those;
    `scores` holds each repeat's, None where a field's score is missing that another repeat has. Answer, feedback and
    remarks are the first repeat's, and the three counts are over all of them. `feedback` is what the metric said in
    English; `remarks` hold the same as data, by field (a row of an earlier version has none).
    """

    index: int
    inputs: Row
    expected: Row
    predicted: Row | None
    score: float | None
    by_field: dict[str, float]
    feedback: str = ""
    remarks: dict[str, Notice] = {}
    error: str | None = None
    failure: Fault | None = None
    problems: tuple[Fault, ...] = ()
    scores: tuple[float | None, ...] = ()
    unreadable: int = 0
    failed: int = 0
    score_errors: int = 0
    trace_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, data: Any) -> Any:
        # Version 0.1 kept what was wrong with a reply, and counted nothing.
        if isinstance(data, dict) and data.get("error") is not None and "unreadable" not in data:
            return {**data, "unreadable": 1}
        return data


class Evaluation(Frozen):
    """A program's scores on one split; `score` is the mean over the rows that count, 0.0 to 1.0."""

    score: float
    rows: tuple[RowResult, ...]
    prompt: tuple[ChatMessage, ...] = ()

    @property
    def unreadable(self) -> int:
        """How many replies could not be read; each of them scored 0.0."""
        return sum(row.unreadable for row in self.rows)

    @property
    def failed(self) -> int:
        """How many calls failed for good; each of them scored 0.0."""
        return sum(row.failed for row in self.rows)

    @property
    def score_errors(self) -> int:
        """How many scores could not be made; they are left out of the means."""
        return sum(row.score_errors for row in self.rows)


def counts(before: RowResult, after: RowResult) -> bool:
    """Whether a row counts when two programs are compared: both have a score for it, made of the same fields.

    The mean of fewer fields measures something else: a field that the judge failed at would pass for a gain.
    """
    both = before.score is not None and after.score is not None
    return both and before.by_field.keys() == after.by_field.keys()


TrialRows = Literal["validation", "minibatch", "train"]
"""What a trial was scored on: the whole validation split, a part of it, or training rows."""


class TrialScore(Frozen):
    """A candidate's score, and on which rows; never on test rows. Only those on the same rows can be compared."""

    step: int
    label: str
    score: float
    rows: TrialRows = "validation"

    @model_validator(mode="before")
    @classmethod
    def _told_by_label(cls, data: Any) -> Any:
        # Version 0.1 said it in the label.
        if isinstance(data, dict) and "rows" not in data:
            label, _, said = str(data.get("label", "")).rpartition(" (")
            if said in {"train)", "minibatch)"}:
                return {**data, "label": label, "rows": said.removesuffix(")")}
        return data


Phase = Literal[
    "queued",
    "starting_lm",
    "preparing",
    "baseline",
    "validating_baseline",
    "optimising",
    "validating",
    "evaluating",
    "saving",
]
# The numbered steps. Before them a job may wait for a worker, and for the bundled model to start.
PHASES: tuple[Phase, ...] = (
    "preparing", "baseline", "validating_baseline", "optimising", "validating", "evaluating", "saving",
)  # fmt: skip


def phases(*, optimises: bool, validates: bool) -> tuple[Phase, ...]:
    """The steps a compile goes through: without an optimizer, or without validation rows, it has fewer."""
    skipped: set[Phase] = set()
    if not validates or not optimises:
        skipped |= {"validating_baseline", "validating"}
    if not optimises:
        skipped |= {"optimising", "evaluating"}
    return tuple(phase for phase in PHASES if phase not in skipped)


class Progress(Frozen):
    """Where a compile stands. `done` of `total` counts the rows of the phase (0 of 0: not countable).

    `row_seconds` lie between the phase's first row that was done and its last so far: what goes before the first
    one (imports, a cold model) says nothing of the speed.
    `baseline_curve` and `evaluation_curve` hold the running mean of the score after each test row; of repeats, only
    the first is shown there.
    """

    phase: Phase = "queued"
    done: int = 0
    total: int = 0
    row_seconds: float = 0.0
    usage: Usage = Usage()
    trials: tuple[TrialScore, ...] = ()
    baseline_curve: tuple[float, ...] = ()
    evaluation_curve: tuple[float, ...] = ()


class SplitSummary(Frozen):
    """A split's size in rows and its digest."""

    rows: int
    digest: str


class CompileResult(Frozen):
    """What a compile found: both programs on the same test rows, with the same settings.

    A row that has no score for one of them, or one of other fields, counts for neither. `difference` is None when
    nothing was optimised.
    """

    baseline: Evaluation
    optimised: Evaluation
    difference: Difference | None = None
    repeats: int = 1
    trials: tuple[TrialScore, ...]
    usage: Usage
    splits: dict[str, SplitSummary]
    data_digest: str
    versions: dict[str, str]

    @property
    def improvement(self) -> float:
        """Optimised minus baseline, −1.0 to 1.0."""
        return self.optimised.score - self.baseline.score

    @property
    def uncounted(self) -> int:
        """How many test rows count for neither program."""
        return len(self.baseline.rows) - len(self._counted())

    @property
    def by_field(self) -> dict[str, tuple[float, float]]:
        """Each scored field's mean before and after, over the rows that count."""
        pairs = self._counted()
        names = dict.fromkeys(name for before, _after in pairs for name in before.by_field)
        return {name: (_mean(name, 0, pairs), _mean(name, 1, pairs)) for name in names}

    def _counted(self) -> list[tuple[RowResult, RowResult]]:
        pairs = zip(self.baseline.rows, self.optimised.rows, strict=True)
        return [(before, after) for before, after in pairs if counts(before, after)]

    def compared(self) -> Self:
        """The result as today's version writes it: version 0.1 kept every row's scores, and compared none."""
        if "difference" in self.model_fields_set or self.baseline == self.optimised:
            return self
        pairs = self._counted()
        before = [row.score for row, _after in pairs if row.score is not None]
        after = [row.score for _before, row in pairs if row.score is not None]
        return self.model_copy(update={"difference": paired_difference(before, after)})


def _mean(name: str, side: Literal[0, 1], pairs: Sequence[tuple[RowResult, RowResult]]) -> float:
    scores = [pair[side].by_field[name] for pair in pairs if name in pair[side].by_field]
    return sum(scores) / len(scores)
