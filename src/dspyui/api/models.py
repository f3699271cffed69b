"""What the API takes and gives; apart from the domain, so that one may change without the other."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from dspyui.domain.base import Notice
from dspyui.domain.batches import BatchModel
from dspyui.domain.compiles import Phase, TrialScore
from dspyui.domain.engine import MAX_SECONDS, PREDICT_SECONDS, LMReply, PredictOutcome
from dspyui.domain.feedback import Feedback
from dspyui.domain.jobs import Job, JobKind, JobStatus
from dspyui.domain.providers import KeyState
from dspyui.domain.registry import ModelVersion, Stage
from dspyui.domain.runs import TrackingStatus
from dspyui.domain.uploads import UploadInfo
from dspyui.i18n import Language
from dspyui.services.estimates import Forecast
from dspyui.services.jobs import JobView
from dspyui.services.lms import ProviderState
from dspyui.services.summary import CompileSummary


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ErrorResponse(_Model):
    """What every failed request gets."""

    code: str
    message: str


class Health(_Model):
    """Whether the program runs, and what it knows of MLflow. The address is told only to who is let in."""

    status: str = "ok"
    version: str
    tracking: TrackingStatus
    tracking_address: str | None = None


class WarningItem(_Model):
    """What is to be known and keeps nothing from running: a code, and a sentence in the caller's language."""

    code: str
    message: str

    @classmethod
    def all_of(cls, notices: Iterable[Notice], language: Language) -> tuple[Self, ...]:
        """From the domain."""
        return tuple(cls(code=notice.key, message=notice.sentence(language)) for notice in notices)


class JobItem(_Model):
    """A job in the list; times are UTC. A note that was never written is None.

    `interrupted`: its status is still running, but the process that ran it has ended; the next start goes on with it.
    """

    id: str
    kind: JobKind
    title: str
    note: str | None
    who: str
    status: JobStatus
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    attempt: int
    cancel_requested: bool
    interrupted: bool

    @classmethod
    def of(cls, job: Job, *, interrupted: bool) -> Self:
        """From the domain."""
        told = job.model_dump(include=set(cls.model_fields))
        return cls.model_validate({**told, "interrupted": interrupted})


class JobProgress(_Model):
    """Where a compile stands: `done` of `total` rows of the phase."""

    phase: Phase
    done: int
    total: int
    trials: tuple[TrialScore, ...]


class JobResponse(_Model):
    """A job as it stands; `place` is its place in the queue, from 1, while it waits."""

    job: JobItem
    place: int | None
    progress: JobProgress
    summary: CompileSummary
    error: ErrorResponse | None

    @classmethod
    def of(cls, view: JobView, summary: CompileSummary, language: Language) -> Self:
        """From the domain; the error in the caller's language."""
        failure, progress = view.job.failure, view.progress
        return cls(
            job=JobItem.of(view.job, interrupted=view.interrupted),
            place=view.place,
            progress=JobProgress(
                phase=progress.phase, done=progress.done, total=progress.total, trials=progress.trials
            ),
            summary=summary,
            error=ErrorResponse(code=failure.code, message=failure.sentence(language)) if failure else None,
        )


class JobCreated(_Model):
    """The id of a queued job, where to look, and what the data cannot show or the optimizer would rather have."""

    job_id: str
    url: str
    warnings: tuple[WarningItem, ...] = ()


class JobChange(_Model):
    """What a job is called, and the note on it, as Markdown; what is left out stays as it is."""

    title: str | None = None
    note: str | None = None


class DataChange(_Model):
    """What a data set is called."""

    name: str


class EstimateResponse(_Model):
    """What a compile would ask at most; the cost in US dollars, None when the price of a model is not known."""

    lm_calls_at_most: int
    input_tokens_about: int
    output_tokens_about: int
    cost_about_at_most: float | None
    warnings: tuple[WarningItem, ...]

    @classmethod
    def of(cls, found: Forecast, language: Language) -> Self:
        """From the service."""
        warnings = WarningItem.all_of(found.warnings, language)
        return cls(**found.model_dump(exclude={"warnings"}), warnings=warnings)


class DataItem(_Model):
    """A kept data set; `digest` is what a spec's `upload` takes. Of one kept by an early version less is known."""

    digest: str
    name: str
    size: int
    at: datetime
    format: str | None
    encoding: str
    rows: int | None
    columns: tuple[str, ...]

    @classmethod
    def of(cls, info: UploadInfo) -> Self:
        """From the domain."""
        return cls.model_validate(info.model_dump())


class RegisterRequestBody(_Model):
    """Exactly one of `run_id` and `job_id`; `why` is needed for a stage; `confirm` is the model's name, where the gate
    before Production asks."""

    run_id: str | None = None
    job_id: str | None = None
    name: str
    description: str = ""
    stage: Stage = "None"
    why: str = ""
    confirm: str = ""


class VersionResponse(_Model):
    """A model version."""

    name: str
    version: int
    stage: Stage
    model_uri: str
    url: str
    run_id: str | None

    @classmethod
    def of(cls, version: ModelVersion) -> Self:
        """From the domain."""
        return cls.model_validate(version.model_dump(include=set(cls.model_fields)))


class PredictRequestBody(_Model):
    """A row of inputs, and whose program answers.

    Exactly one of: `model` with one of `version`, `stage` and `alias`; `run_id`; `job_id`; `program`, the document
    itself; or `model` alone when it says all of it (`models:/NAME/VERSION`, `runs:/…`, `job:…`, the path of a program
    file). It is stopped after `seconds`.
    """

    model: str | None = None
    version: int | None = None
    stage: Stage | None = None
    alias: str | None = None
    run_id: str | None = None
    job_id: str | None = None
    program: dict[str, Any] | None = None
    inputs: dict[str, Any]
    seconds: float = Field(default=PREDICT_SECONDS, gt=0, le=MAX_SECONDS)


class PredictResponse(_Model):
    """The outputs, and what they took; `cost` is in US dollars, None when a price is not known.

    `model` is the program that answered, `trace_id` its trace in MLflow, None when calls are not traced.
    """

    outputs: dict[str, Any]
    model: str
    trace_id: str | None
    lm_calls: int
    lm_cache_hits: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cost: float | None
    seconds: float

    @classmethod
    def of(cls, model: BatchModel, outcome: PredictOutcome) -> Self:
        """From the service."""
        used = outcome.usage
        return cls(
            outputs=outcome.outputs,
            model=model.uri,
            trace_id=outcome.trace_id,
            lm_calls=used.lm_calls,
            lm_cache_hits=used.lm_cache_hits,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            total_tokens=used.total_tokens,
            cost=used.cost,
            seconds=outcome.seconds,
        )


class FeedbackRequestBody(_Model):
    """An opinion on one call: thumbs up or down with a comment, the output fields as they should have been, or both."""

    trace_id: str
    thumbs_up: bool | None = None
    comment: str = ""
    correction: dict[str, Any] | None = None


class FeedbackResponse(_Model):
    """What MLflow now holds of this person's on the trace."""

    trace_id: str
    who: str
    thumbs_up: bool | None
    comment: str
    correction: dict[str, Any] | None

    @classmethod
    def of(cls, trace_id: str, who: str, held: Feedback) -> Self:
        """From the service."""
        return cls(trace_id=trace_id, who=who, **held.model_dump())


class ProviderItem(_Model):
    """A provider of models; `key` tells whether and where its key is set, never what it is."""

    provider: str
    variable: str
    key: KeyState

    @classmethod
    def of(cls, found: ProviderState) -> Self:
        """From the service."""
        return cls(provider=found.provider.name, variable=found.variable, key=found.state)


class LMsResponse(_Model):
    """The models that can be called now, and the providers that are known."""

    models: tuple[str, ...]
    providers: tuple[ProviderItem, ...]


class LMTestRequestBody(_Model):
    """A language model as in a spec; what is left out has the spec's default."""

    model: str
    api_base: str | None = None
    api_key_env: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None


class LMTestResponse(_Model):
    """What a model answered to a test; `cost` is in US dollars, None when its price is not known."""

    reply: str
    seconds: float
    input_tokens: int
    output_tokens: int
    cost: float | None

    @classmethod
    def of(cls, reply: LMReply) -> Self:
        """From the service."""
        used = reply.usage
        return cls(
            reply=reply.text,
            seconds=reply.seconds,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            cost=used.cost,
        )
