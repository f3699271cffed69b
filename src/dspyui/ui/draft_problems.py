"""What keeps a draft of the compile form from being compiled, each thing at its place in the form. Pure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self

from dspyui.domain.lms import LMSpec
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import ProgramSpec
from dspyui.domain.signatures import FieldSpec, SignatureSpec, check_field_name
from dspyui.domain.splits import SplitSpec
from dspyui.errors import BadRequestError, DSPyUIError
from dspyui.services.documents import part_of
from dspyui.ui.drafts import OTHER_ROLES, CompileDraft, FieldDraft

Place = Literal["program", "fields", "data", "optimizer", "metric", "lm", "all"]
# Errors of a form that is not filled in yet, as it is when one starts empty.
OPEN_CODES: Final = frozenset(
    {
        "program.name_empty",
        "field_name.empty",
        "signature.no_inputs",
        "signature.no_outputs",
        "data.no_file",
        "data.no_split_file",
        "data.no_split_column",
        "data.columns",
        "data.empty",
    }
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that keeps the draft from being compiled, and the part of the form where it can be mended.

    `is_open`: nothing is wrong, something is only not filled in yet.
    """

    place: Place
    error: DSPyUIError
    is_open: bool = False

    @classmethod
    def of(cls, place: Place, error: DSPyUIError, *, is_open: bool = False) -> Self:
        """The problem an error makes; some errors only say that something is still to come."""
        return cls(place, error, is_open or error.code in OPEN_CODES)


def problems(draft: CompileDraft) -> list[Problem]:
    """Everything that can be seen to be wrong without reading the data, in the order of the form."""
    found = list(_problems(draft))
    if not found:
        found = [
            Problem.of("data" if error.code in OPEN_CODES else "all", error)
            for error in _raised(draft.to_spec)
        ]
    return _each_once(found)


def _each_once(found: Sequence[Problem]) -> list[Problem]:
    """Two nameless fields are one thing to say."""
    return list({(problem.place, str(problem.error)): problem for problem in found}.values())


def _problems(draft: CompileDraft) -> Iterator[Problem]:
    signature_errors = list(_signature_errors(draft))
    yield from (Problem.of("fields", error) for error in signature_errors)
    if not signature_errors:
        # Only a sound signature can tell whether the program's own name is what is wrong.
        yield from (
            Problem.of("program", error)
            for error in _raised(lambda: part_of(ProgramSpec, draft.program_document()))
        )
    yield from (
        Problem.of("optimizer", error)
        for error in _raised(lambda: part_of(OptimizerSpec, draft.optimizer_document()))
    )
    if not signature_errors:
        yield from (Problem.of("metric", error) for error in _raised(lambda: _check_metric(draft)))
    yield from _lm_problems(draft)
    split = draft.split_document()
    yield from (Problem.of("data", error) for error in _raised(lambda: part_of(SplitSpec, split)))


def _check_metric(draft: CompileDraft) -> None:
    signature = part_of(SignatureSpec, draft.signature_document())
    part_of(MetricSpec, draft.metric_document()).check(signature)


def _lm_problems(draft: CompileDraft) -> Iterator[Problem]:
    for lm in (draft.task, *(draft.role(role) for role in OTHER_ROLES)):
        if lm is not None:
            yield from (
                Problem.of("lm", error, is_open=not lm.model.strip())
                for error in _raised(lambda lm=lm: part_of(LMSpec, lm.document()))
            )


def _signature_errors(draft: CompileDraft) -> Iterator[DSPyUIError]:
    each = [
        error
        for made in draft.all_fields()
        for error in _raised(lambda made=made: part_of(FieldSpec, made.document()))
    ]
    yield from each or _raised(lambda: part_of(SignatureSpec, draft.signature_document()))


def _raised(check: Callable[[], object]) -> list[DSPyUIError]:
    try:
        check()
    except DSPyUIError as exc:
        return [exc]
    return []


def rename_problem(draft: CompileDraft, made: FieldDraft) -> DSPyUIError | None:
    """What is wrong with the name of one field, as it is typed."""
    errors = _raised(lambda: check_field_name(made.name))
    if errors:
        return errors[0]
    twice = sum(other.name == made.name for other in draft.all_fields()) > 1
    return BadRequestError("signature.twice", name=made.name) if twice else None
