"""Register a compiled program as a model version."""

from collections.abc import Mapping

from dspyui.domain.jobs import JobStore
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.registry import (
    OWN_ADDRESS_TAG,
    ModelRegistry,
    ModelVersion,
    RegisterRequest,
    Stage,
    check_model_name,
    check_reason,
)
from dspyui.domain.runs import RunInfo, RunStore
from dspyui.errors import BadRequestError
from dspyui.services.gate import GateService
from dspyui.services.record import RecordService

# What a version's tag is called, and the Run's param it comes from.
_MEASURED: Mapping[str, str] = {
    "metric": "metric",
    "metric_fields": "metric.fields",
    "test_rows": "rows.test",
}
_SCORES = (
    "baseline_score",
    "evaluation_score",
    "score_improvement",
    "score_improvement_ci_low",
    "score_improvement_ci_high",
)


class RegisterService:
    """Registers the program of a Run, or of a job (whose Run is made first when there is none).

    Registering straight into Production is a promotion: the gate decides, and `confirm` is what it asks for. A stage
    needs a reason, as every move to one does.
    """

    def __init__(
        self,
        runs: RunStore,
        registry: ModelRegistry,
        record: RecordService,
        jobs: JobStore,
        gate: GateService,
    ) -> None:
        self._runs = runs
        self._registry = registry
        self._record = record
        self._jobs = jobs
        self._gate = gate

    def register_job(
        self,
        job_id: str,
        *,
        name: str,
        who: str,
        description: str = "",
        stage: Stage = "None",
        why: str = "",
        confirm: str = "",
    ) -> ModelVersion:
        """Register what a job made. Raises BadRequestError (also for a stage without a reason `why`; ConflictError from
        the gate), NotFoundError or UnavailableError."""
        checked = check_model_name(name)
        reason = _reason(stage, why)
        if self._jobs.get(job_id).status != "done":
            raise BadRequestError("register.not_done", job_id=job_id)
        link = self._record.ensure_run(job_id)
        return self.register_run(
            link.run_id,
            name=checked,
            who=who,
            description=description,
            stage=stage,
            why=reason,
            confirm=confirm,
        )

    def register_run(
        self,
        run_id: str,
        *,
        name: str,
        who: str,
        description: str = "",
        stage: Stage = "None",
        why: str = "",
        confirm: str = "",
    ) -> ModelVersion:
        """Register the program among a Run's artifacts. Raises what `register_job` raises."""
        checked, reason = check_model_name(name), _reason(stage, why)
        run = self._runs.get_run(run_id)
        program = CompiledProgram.from_json(self._runs.program(run_id), where=f"Run {run_id}")
        record = None
        if stage == "Production":
            record = self._gate.pass_through(self._gate.report_of_run(checked, run_id), confirm)
        request = RegisterRequest(
            run_id=run_id,
            name=checked,
            description=description,
            stage=stage,
            who=who,
            why=reason,
            gate=record,
        )
        example = self._runs.input_example(run_id)
        return self._registry.register(
            request, program, tags=version_tags(run, program), input_example=example
        )


def _reason(stage: Stage, why: str) -> str:
    """A version without a stage needs none."""
    return "" if stage == "None" else check_reason(why)


def version_tags(run: RunInfo, program: CompiledProgram) -> dict[str, str]:
    """What a version says of itself: signature, module, optimizer, run; how it was measured, on how much, and what
    came of it (`dspyui.verdict` is the word of `domain.intervals`), and what the compile cost in US dollars."""
    signature = program.spec.signature
    inputs = ", ".join(field.name for field in signature.inputs)
    outputs = ", ".join(field.name for field in signature.outputs)
    tags = {
        "dspyui.program": program.spec.name,
        "dspyui.signature": f"{inputs} -> {outputs}",
        "dspyui.signature_digest": program.signature_digest,
        "dspyui.module": program.spec.module.info.label,
        "dspyui.optimizer": program.optimizer.info.label,
        "dspyui.lm": program.lm.model,
        "dspyui.run_id": run.run_id,
    }
    if program.lm.api_base is not None:
        tags[OWN_ADDRESS_TAG] = "true"
    for key in ("dspyui.data_digest", "dspyui.job_id", "dspyui.verdict"):
        if key in run.tags:
            tags[key] = run.tags[key]
    for name, key in _MEASURED.items():
        if key in run.params:
            tags[f"dspyui.{name}"] = run.params[key]
    for key in _SCORES:
        if key in run.metrics:
            tags[f"dspyui.{key}"] = f"{run.metrics[key]:.4f}"
    if "cost" in run.metrics:
        tags["dspyui.cost"] = f"{run.metrics['cost']:.6f}"
    return tags
