"""What a compile will ask of language models, told before it starts: calls at most, tokens and cost about."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from dspyui.domain.base import Frozen
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.effort import Effort, Load
from dspyui.domain.lms import LMRole, ModelSpec
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.programs import ModuleSpec
from dspyui.domain.scores import as_text
from dspyui.domain.signatures import Row
from dspyui.domain.splits import SplitName

# Averages over this many rows say enough of how long a row is.
_SAMPLE_ROWS = 200
# How DSPy's chat adapter frames a prompt, in tokens: once, for each field, and for each field of a demonstration.
_FRAME, _PER_FIELD, _PER_DEMO_FIELD = 60, 32, 9
# What a model thinks aloud, in tokens: mostly one to four sentences.
_REASONING = 80
# A prompt writer sees some rows, the program and a tip, and writes a paragraph; a judge writes a sentence.
_WRITER_FRAME, _WRITER_ROWS, _WRITER_SAYS = 900, 6, 200
_JUDGE_FRAME, _JUDGE_SAYS = 120, 60


class Price(Frozen):
    """US dollars for one token that is sent, and for one that comes back."""

    input: float
    output: float


class PriceList(Protocol):
    """What providers ask for a token."""

    def find(self, model: str) -> Price | None:
        """The listed price of a model (`provider/model`); None when it is not known, which is not zero."""
        ...


class Asked(Frozen):
    """Calls at most, and about how many tokens so many calls take."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Asked") -> "Asked":
        return Asked(
            calls=self.calls + other.calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )


class Estimate(Frozen):
    """What a compile asks at most, and what that would cost in US dollars; None when a price is not known.

    Retries, and replies that have to be asked for again because they could not be read, come on top; calls that were
    made before are answered from the cache and cost nothing.
    """

    asked: Asked
    cost: float | None


def tokens_of(text: str) -> float:
    """About how many tokens a text has: four letters of English make one, a Chinese character is one."""
    plain = sum(character.isascii() for character in text)
    return plain / 4 + (len(text) - plain)


def mean_tokens(rows: Iterable[Row]) -> dict[str, float]:
    """About how many tokens each field of a row has in the mean, over a sample of the rows."""
    every = list(rows)
    sample = every[:: max(1, len(every) // _SAMPLE_ROWS)]
    names = dict.fromkeys(name for row in sample for name in row)
    return {
        name: sum(tokens_of(as_text(row[name])) for row in sample if row.get(name) is not None) / len(sample)
        for name in names
    }


def asked_by_role(
    spec: CompileSpec, sizes: Mapping[SplitName, int], tokens: Mapping[str, float]
) -> dict[LMRole, Asked]:
    """What each role is asked, the ones it stands in for included. `tokens` are those of a row's fields in the mean."""
    module = spec.program.module
    load = Load(train=sizes["train"], validation=sizes["validation"], predictors=predictors(module))
    effort = spec.optimizer.effort(load)
    before, after = _scored_runs(spec, sizes)
    teacher_runs = effort.teacher_runs + after * effort.teacher_runs_each
    shown = effort.runs + after
    scored = before + shown + teacher_runs + effort.rescored
    attempts = _attempts(module) * (before + shown + teacher_runs)
    size = _Size(spec, tokens)
    found: dict[LMRole, Asked] = {
        "task": size.program(before, Effort()) + size.program(shown, effort),
        "teacher": size.program(teacher_runs, effort) + size.writer(effort.lessons),
        "prompt": size.writer(effort.prompts),
        "judge": size.judge(scored * _judged(spec.metric, spec))
        + size.judge(attempts * _judged(module.reward, spec)),
    }
    return {role: asked for role, asked in found.items() if asked.calls}


def predictors(module: ModuleSpec) -> int:
    """How many predictors, each with a prompt of its own, a program of this module has."""
    return 2 if module.kind == "multi_chain_comparison" else 1


def calls_of_run(module: ModuleSpec) -> int:
    """How many calls one run of the program makes at most: MultiChainComparison compares `M` attempts, Refine asks for
    advice between two of its `N`."""
    params = module.resolved()
    match module.kind:
        case "multi_chain_comparison":
            return _whole(params["M"]) + 1
        case "best_of_n":
            return _whole(params["N"])
        case "refine":
            return 2 * _whole(params["N"]) - 1
        case _:
            return 1


def _attempts(module: ModuleSpec) -> int:
    return _whole(module.resolved()["N"]) if module.info.rewards else 0


def _scored_runs(spec: CompileSpec, sizes: Mapping[SplitName, int]) -> tuple[int, int]:
    """Runs that score the program before and after, as `CompileRun` makes them."""
    test = sizes["test"] * spec.repeats
    if spec.optimizer.kind == "none":
        return test, 0
    return test + sizes["validation"], test + sizes["validation"]


def _judged(metric: MetricSpec | None, spec: CompileSpec) -> int:
    """How many answers a judge looks at when a row is scored."""
    if metric is None or metric.info.needs != "judge":
        return 0
    return len(metric.fields or spec.program.signature.outputs)


class _Size:
    """How long the prompts and replies of a compile are, about, in tokens."""

    def __init__(self, spec: CompileSpec, tokens: Mapping[str, float]) -> None:
        signature, module = spec.program.signature, spec.program.module
        self._module = module
        self._takes = sum(tokens.get(field.name, 0) for field in signature.inputs)
        self._gives = sum(tokens.get(field.name, 0) for field in signature.outputs)
        self._fields = len(signature.fields) + len(module.added_outputs())
        self._thinks = _REASONING * len(module.added_outputs())
        told = [signature.instructions, *(field.description for field in signature.fields)]
        self._frame = _FRAME + _PER_FIELD * self._fields + sum(map(tokens_of, told))
        self._limit = spec.lms.task.max_tokens

    def program(self, runs: int, effort: Effort) -> Asked:
        """So many runs of the program, with the demonstrations that the optimizer made for it."""
        shown = effort.demos * (self._takes + self._gives + _PER_DEMO_FIELD * self._fields)
        shown += effort.worked * self._thinks
        says = self._gives + self._thinks + _PER_DEMO_FIELD * self._fields / 2
        reply = min(says, self._limit) if self._limit else says
        return _asked(runs * calls_of_run(self._module), self._frame + self._takes + shown, reply)

    def writer(self, calls: int) -> Asked:
        """So many calls that write instructions or rules."""
        return _asked(calls, _WRITER_FRAME + _WRITER_ROWS * (self._takes + self._gives), _WRITER_SAYS)

    def judge(self, calls: int) -> Asked:
        """So many answers judged."""
        return _asked(calls, _JUDGE_FRAME + self._takes + 2 * self._gives, _JUDGE_SAYS)


def _asked(calls: int, sent: float, came: float) -> Asked:
    return Asked(calls=calls, input_tokens=round(calls * sent), output_tokens=round(calls * came))


def cost_of(asked: Asked, price: Price | None) -> float | None:
    """What it costs in US dollars; nothing asked costs nothing."""
    if not asked.calls:
        return 0.0
    return None if price is None else asked.input_tokens * price.input + asked.output_tokens * price.output


def role_model(spec: CompileSpec, role: LMRole) -> ModelSpec:
    """The model that plays a role: its own, else the task's."""
    return spec.lms.by_role().get(role, spec.lms.task)


def _whole(value: Any) -> int:
    return int(value or 0)
