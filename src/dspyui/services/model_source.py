"""Programs by the name a person gives them: a model version, a Run, a job, a file."""

from pathlib import Path
from stat import S_ISREG
from typing import Final

from dspyui.domain.batches import BatchModel
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.registry import OWN_ADDRESS_TAG, STAGE_ALIASES, STAGES, ModelRegistry, ModelVersion, Stage
from dspyui.domain.runs import RunStore
from dspyui.domain.storage import ProgramStore
from dspyui.errors import BadRequestError, NotFoundError

_NAMED: Final = ("models:/", "runs:/", "job:", "program:")
_MAX_PROGRAM: Final = 256 * 1024 * 1024


class ModelSource:
    """Finds the program that `models:/NAME/VERSION`, `…/STAGE` or `…@ALIAS`, `runs:/…`, `job:…` or a path names.

    `program:SHA256` is one that was uploaded.
    """

    def __init__(
        self, registry: ModelRegistry, runs: RunStore, programs: ProgramStore, *, api_base: str | None
    ) -> None:
        """`api_base`: the address for versions that were compiled against an address of somebody's own."""
        self._registry = registry
        self._runs = runs
        self._programs = programs
        self._api_base = api_base

    def get(self, model: str, *, has_own_lm: bool = False) -> BatchModel:
        """The program with where it came from. `has_own_lm`: another LM will answer, so its own needs no address.

        Raises NotFoundError, BadRequestError for what is no program, UnavailableError when MLflow is away.
        """
        wanted = model.strip()
        if wanted.startswith("models:/"):
            return self.of_version(self._version(wanted), has_own_lm=has_own_lm)
        if wanted.startswith("runs:/"):
            run_id = wanted.removeprefix("runs:/").partition("/")[0]
            program = CompiledProgram.from_json(self._runs.program(run_id), where=f"Run {run_id}")
            return BatchModel(program=program, uri=f"runs:/{run_id}", name=program.spec.name, run_id=run_id)
        if wanted.startswith("job:"):
            program = self._programs.get(wanted.removeprefix("job:"))
            return BatchModel(program=program, uri=wanted, name=program.spec.name)
        if wanted.startswith("program:"):
            program = self._programs.uploaded(wanted.removeprefix("program:"))
            return BatchModel(program=program, uri=wanted, name=program.spec.name)
        program = _from_file(wanted)
        # The folder is nobody else's business: the name stands in MLflow.
        return BatchModel(program=program, uri=Path(wanted).name, name=program.spec.name)

    def of_version(self, version: ModelVersion, *, has_own_lm: bool = False) -> BatchModel:
        """The program of a version. Raises what `get` raises.

        A version keeps no address. One that was compiled against somebody's own server is not sent to the provider's
        public one instead: raises BadRequestError when no address is set.
        """
        program = self._registry.program(version)
        if version.tags.get(OWN_ADDRESS_TAG) == "true" and program.lm.api_base is None and not has_own_lm:
            if self._api_base is None:
                raise BadRequestError("predict.address_needed", name=version.name, model=program.lm.model)
            program = program.at(self._api_base)
        return BatchModel(
            program=program,
            uri=version.model_uri,
            name=version.name,
            version=version.version,
            run_id=version.run_id,
        )

    def at_its_address(self, kept: BatchModel) -> BatchModel:
        """A copy of a program: that of a version that keeps no address, at the one that is set now, if any is."""
        if kept.version is None or kept.program.lm.api_base is None or self._api_base is None:
            return kept
        return kept.model_copy(update={"program": kept.program.at(self._api_base)})

    def _version(self, uri: str) -> ModelVersion:
        path = uri.removeprefix("models:/")
        name, slash, which = path.rpartition("/")
        if slash and which.isdecimal():
            return self._registry.get_version(name, int(which))
        if slash and (stage := _stage_of(which)):
            return self._registry.get_by_stage(name, stage)
        name, at, alias = path.rpartition("@")
        stages: dict[str, Stage] = {known: stage for stage, known in STAGE_ALIASES.items()}
        if at and name and alias in stages:
            return self._registry.get_by_stage(name, stages[alias])
        if at and name and alias:
            return self._registry.get_by_alias(name, alias)
        raise BadRequestError("batch.model_uri", uri=uri, stages=", ".join(STAGES[1:]))


def check_from_network(model: str) -> None:
    """Raise BadRequestError for a path: somebody elsewhere would learn which files this machine has."""
    if not model.strip().startswith(_NAMED):
        raise BadRequestError("batch.model_network")


def _stage_of(word: str) -> Stage | None:
    return next((stage for stage in STAGES if stage.lower() == word.lower()), None)


def _from_file(path: str) -> CompiledProgram:
    file = Path(path).expanduser()
    try:
        text = _content(file, path).decode()
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise NotFoundError("batch.model_missing", path=path) from exc
    except (OSError, ValueError) as exc:
        raise BadRequestError("batch.model_file", path=path, problem=str(exc)) from exc
    return CompiledProgram.from_json(text, where=file.name)


def _content(file: Path, path: str) -> bytes:
    """What an ordinary file of at most so many bytes holds: a device never ends, a pipe nobody writes to hangs."""
    if not S_ISREG(file.stat().st_mode):
        raise BadRequestError("batch.model_special", path=path)
    with file.open("rb") as stream:
        content = stream.read(_MAX_PROGRAM + 1)
    if len(content) > _MAX_PROGRAM:
        raise BadRequestError("batch.model_large", path=path, limit=_MAX_PROGRAM // 1024**2)
    return content
