"""Try a program on one row."""

from dspyui.domain.engine import PredictOutcome, ProgramRunner
from dspyui.domain.lms import LMSpec
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.registry import OWN_ADDRESS_TAG, ModelRegistry, ModelVersion, Stage
from dspyui.domain.signatures import Row, parse_row
from dspyui.domain.storage import ProgramStore
from dspyui.errors import BadRequestError, FailedError
from dspyui.services.keys import KeyRules
from dspyui.services.metrics import MetricService


class PredictService:
    """Runs a kept or registered program on one row."""

    def __init__(
        self,
        programs: ProgramStore,
        registry: ModelRegistry,
        runner: ProgramRunner,
        metrics: MetricService,
        *,
        keys: KeyRules,
        api_base: str | None = None,
    ) -> None:
        """`api_base`: the address for versions that were compiled against an address of somebody's own.

        `keys` says which keys it may use.
        """
        self._programs = programs
        self._registry = registry
        self._runner = runner
        self._metrics = metrics
        self._keys = keys
        self._api_base = api_base

    def with_program(
        self, program: CompiledProgram, inputs: Row, *, lm: LMSpec | None = None
    ) -> PredictOutcome:
        """Predict with the LM the program was compiled for, or another.

        Raises BadRequestError for inputs that do not fit, a key that is missing and a metric of somebody's own that
        may not run here, FailedError when the LM fails or its reply cannot be read.
        """
        parsed = parse_row(program.spec.signature.inputs, inputs, where="input")
        lms = program.roles(lm)
        self._keys.check(lms)
        self._metrics.check(program.metrics)
        outcome, problem = self._runner.predict(program, lms, parsed)
        if outcome is None:
            raise FailedError("predict.unreadable", problem=problem)
        return outcome

    def with_job(self, job_id: str, inputs: Row) -> PredictOutcome:
        """The same with the program a job made. Raises NotFoundError too."""
        return self.with_program(self._programs.get(job_id), inputs)

    def with_stage(self, name: str, stage: Stage, inputs: Row) -> PredictOutcome:
        """The same with the version that holds a stage. Raises NotFoundError and UnavailableError too."""
        return self.with_version(self._registry.get_by_stage(name, stage), inputs)

    def with_version(self, version: ModelVersion, inputs: Row) -> PredictOutcome:
        """The same with a version.

        A version keeps no address. One that was compiled against somebody's own server is not sent to the
        provider's public one instead: raises BadRequestError when no address is set.
        """
        program = self._registry.program(version)
        lm = program.lm
        if version.tags.get(OWN_ADDRESS_TAG) == "true" and lm.api_base is None:
            if self._api_base is None:
                raise BadRequestError("predict.address_needed", name=version.name, model=lm.model)
            program = program.at(self._api_base)
        return self.with_program(program, inputs)
