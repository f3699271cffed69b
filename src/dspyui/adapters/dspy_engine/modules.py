"""Our modules as DSPy's: one entry each. These files also travel inside registered models."""

import copy
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dspy
import numpy as np

from dspyui.adapters.dspy_engine.metrics import to_examples, to_metric, to_reward
from dspyui.adapters.dspy_engine.signatures import to_dspy
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.programs import CompiledProgram, ModuleKind, Neighbours, ProgramSpec
from dspyui.domain.scores import ScoreTools
from dspyui.errors import BadRequestError, FailedError

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Tools:
    """What some programs need beside the task LM: what scores, and the teacher's settings (empty: the task LM's)."""

    score: ScoreTools
    teacher: Mapping[str, Any] = field(default_factory=dict)


class MultiChainComparison(dspy.Module):
    """Makes its own attempts, `M` reasoned answers at `temperature`, and lets DSPy's module compare them."""

    def __init__(self, signature: type[dspy.Signature], M: int, temperature: float) -> None:  # noqa: N803
        super().__init__()
        self.attempt = dspy.ChainOfThought(signature)
        with warnings.catch_warnings():
            # DSPy's module gives its fields prefixes, which DSPy itself deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.compare = dspy.MultiChainComparison(signature, M=M, temperature=temperature)
        self.M = M
        self.temperature = temperature

    def forward(self, **inputs: Any) -> dspy.Prediction:
        """One call an attempt: not every server gives several answers to one request."""
        lm = self.attempt.predict.lm or dspy.settings.lm
        # Attempts differ by their rollout, which also keeps their cache entries apart.
        first = (lm.kwargs.get("rollout_id") or 0) * self.M
        attempts = []
        for number in range(first, first + self.M):
            config: dict[str, Any] = {"temperature": self.temperature}
            if self.temperature > 0:
                config["rollout_id"] = number
            attempts.append(self.attempt(**inputs, config=config))
        return self.compare(attempts, **inputs)


class _Attempt:
    """A copy of the inner module that notes what goes wrong in it."""

    def __init__(self, module: dspy.Module, errors: list[Exception]) -> None:
        self._module = module
        self._errors = errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def __call__(self, **inputs: Any) -> dspy.Prediction:
        try:
            return self._module(**inputs)
        except Exception as exc:
            self._errors.append(exc)
            raise


class _Inner:
    """Stands in for the inner module during one call.

    DSPy runs copies of it and swallows what they raise; this keeps both, so that the errors can be told when no
    attempt gave an answer, and the steps of the best attempt be named after the module's own predictors, which is
    how optimizers that learn from traces find them.
    """

    def __init__(self, module: dspy.Module) -> None:
        self._module = module
        self._copies: list[dspy.Module] = []
        self.errors: list[Exception] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def deepcopy(self) -> _Attempt:
        made = self._module.deepcopy()
        self._copies.append(made)
        return _Attempt(made, self.errors)

    def own_steps(self, trace: list[Any]) -> list[Any]:
        """The steps of the copies, as if the module itself had made them; a hint of Refine's is no input."""
        own = dict(self._module.named_predictors())
        names = {id(copied): name for made in self._copies for name, copied in made.named_predictors()}
        return [
            (own[names[id(step)]], {key: value for key, value in inputs.items() if key != "hint_"}, outputs)
            for step, inputs, outputs in trace
            if id(step) in names
        ]


class _Attempting(dspy.Module):
    """What BestOfN and Refine share. Each call has a state of its own: DSPy counts failures in the module itself,
    so that calls at once, or one after the other, would use up each other's."""

    module: Any
    reward_fn: Callable[..., float]

    def _attempted(
        self, forward: Callable[..., dspy.Prediction | None], inputs: Mapping[str, Any]
    ) -> dspy.Prediction:
        one, inner, reward = copy.copy(self), _Inner(self.module), self.reward_fn

        def noted(*arguments: Any) -> float:
            try:
                return reward(*arguments)
            except FailedError as exc:
                inner.errors.append(exc)
                raise

        one.module, one.reward_fn = inner, noted
        with dspy.context(trace=[]):
            prediction = forward(one, **inputs)
            steps = inner.own_steps(dspy.settings.trace)
        if dspy.settings.trace is not None:
            dspy.settings.trace.extend(steps)
        if prediction is None:
            raise inner.errors[-1]
        return prediction


class BestOfN(_Attempting, dspy.BestOfN):
    """DSPy's BestOfN, safe to call from several threads."""

    def forward(self, **inputs: Any) -> dspy.Prediction:
        """The answer with the highest reward. Raises what the last attempt raised when none gave one."""
        return self._attempted(dspy.BestOfN.forward, inputs)


class Refine(_Attempting, dspy.Refine):
    """DSPy's Refine, safe to call from several threads."""

    def forward(self, **inputs: Any) -> dspy.Prediction:
        """The answer with the highest reward. Raises what the last attempt raised when none gave one."""
        return self._attempted(dspy.Refine.forward, inputs)


class KNNFewShot(dspy.Module):
    """What DSPy's KNNFewShot makes of a program, with its parts kept as data.

    DSPy puts a closure over the rows' vectors into the program; here it is made again from `neighbours` when it is
    first needed, so that loading asks no embedder.
    """

    def __init__(
        self, student: dspy.Module, spec: ProgramSpec, neighbours: Neighbours, params: Params, tools: Tools
    ) -> None:
        super().__init__()
        self.student = student
        self.neighbours = neighbours
        self._names = [made.name for made in spec.signature.inputs]
        self._answering = _Once(lambda: _knn_few_shot(student, spec, neighbours, params, tools))

    def forward(self, **inputs: Any) -> dspy.Prediction:
        """Bootstrap on the nearest rows, then answer."""
        return self._answering.get()(**{name: inputs[name] for name in self._names})


class _Once:
    """A value that is made when it is first asked for, by one thread."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: list[Any] = []

    def get(self) -> Any:
        with self._lock:
            if not self._made:
                self._made.append(self._make())
        return self._made[0]


def _knn_few_shot(
    student: dspy.Module, spec: ProgramSpec, neighbours: Neighbours, params: Params, tools: Tools
) -> dspy.Module:
    own = dict(params)
    metric = to_metric(neighbours.metric, spec, tools.score, threshold=own["metric_threshold"])
    optimizer = dspy.KNNFewShot(
        k=own.pop("k"),
        trainset=to_examples(neighbours.rows, spec),
        vectorizer=dspy.Embedder(
            lambda texts: np.array(tools.score.embed(texts), dtype=np.float32), caching=False
        ),
        metric=metric,  # type: ignore[arg-type]  # passed on to BootstrapFewShot
        teacher_settings=dict(tools.teacher),
        **own,
    )
    return optimizer.compile(student)


BuildModule = Callable[[ProgramSpec, type[dspy.Signature], Params, Tools], dspy.Module]


def _inner(spec: ProgramSpec, tools: Tools) -> dspy.Module:
    return build(spec.model_copy(update={"module": spec.module.inner}), tools)


def _attempts(spec: ProgramSpec, params: Params, tools: Tools) -> dict[str, Any]:
    reward = spec.module.reward
    assert reward is not None  # noqa: S101 - the spec was checked when it was made
    return {
        "module": _inner(spec, tools),
        "N": params["N"],
        "reward_fn": to_reward(reward, spec, tools.score),
        "threshold": params["threshold"],
        "fail_count": params["fail_count"],
    }


def _refine(spec: ProgramSpec, _signature: type[dspy.Signature], params: Params, tools: Tools) -> dspy.Module:
    made = Refine(**_attempts(spec, params, tools))
    # DSPy shows the reward's source to the model that advises; ours says nothing of what is rewarded.
    made.reward_fn_code = _reward_words(spec.module.reward)
    return made


def _reward_words(reward: MetricSpec | None) -> str:
    if reward is None:
        return ""
    fields = ", ".join(reward.fields) or "all output fields"
    settings = "".join(f"\n- {name}: {value}" for name, value in reward.resolved().items())
    return (
        f"The metric '{reward.info.label}' over {fields}, from 0.0 (worst) to 1.0 (best), "
        f"with:{settings or ' no settings'}"
    )


MODULES: Mapping[ModuleKind, BuildModule] = {
    "predict": lambda _spec, signature, _params, _tools: dspy.Predict(signature),
    "chain_of_thought": lambda _spec, signature, _params, _tools: dspy.ChainOfThought(signature),
    "multi_chain_comparison": lambda _spec, signature, params, _tools: MultiChainComparison(
        signature, **params
    ),
    "best_of_n": lambda spec, _signature, params, tools: BestOfN(**_attempts(spec, params, tools)),
    "refine": _refine,
}


def build(spec: ProgramSpec, tools: Tools) -> dspy.Module:
    """A fresh program."""
    return MODULES[spec.module.kind](spec, to_dspy(spec.signature), spec.module.resolved(), tools)


def load(program: CompiledProgram, tools: Tools) -> dspy.Module:
    """The program with its state. Raises BadRequestError when the state does not fit the spec."""
    module = with_state(program.spec, program.state, tools)
    if program.neighbours is None:
        return module
    return KNNFewShot(module, program.spec, program.neighbours, program.optimizer.resolved(), tools)


def with_state(spec: ProgramSpec, state: dict[str, Any], tools: Tools) -> dspy.Module:
    """A program of the spec with a state of DSPy's. Raises BadRequestError when the two do not fit."""
    module = build(spec, tools)
    try:
        module.load_state(state)
    except (KeyError, ValueError, TypeError) as exc:
        raise BadRequestError("program.state", name=spec.name, problem=str(exc)) from exc
    # A document that was made elsewhere must not choose the LM.
    for predictor in module.predictors():
        predictor.lm = None
    return module


def clean(value: Any) -> Any:
    """What a model said, as text that can be written and sent: half a character (`"\\ud83d"` is valid JSON, and where
    a small model's reply is cut off) becomes `?`."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case list():
            return [clean(item) for item in value]
        case dict():
            return {clean(key): clean(item) for key, item in value.items()}
        case _:
            return value


def dump_state(module: dspy.Module) -> dict[str, Any]:
    """DSPy's JSON state without any LM: an LM's state holds addresses and headers."""
    if isinstance(module, KNNFewShot):
        return dump_state(module.student)
    bare = module.deepcopy()
    for predictor in bare.predictors():
        predictor.lm = None
    # What a model said in its demos is made clean: DSPy refuses to send them otherwise.
    state = clean(bare.dump_state())
    state.pop("metadata", None)
    return state
