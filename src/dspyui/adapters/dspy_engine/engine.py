"""The engine: DSPy behind the domain's protocol. It lives in a child process of its own."""

import platform
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

import dspy
from dspy.utils.exceptions import AdapterParseError, LMError

from dspyui import __version__
from dspyui.adapters.dspy_engine import lms, modules, optimizers
from dspyui.adapters.dspy_engine.gate import limit_calls
from dspyui.adapters.dspy_engine.meter import FINISHED, TRACE_TAGS, Meter, MeteredCache
from dspyui.adapters.dspy_engine.scoring import JUDGING, DspyScoreTools, embedder_of
from dspyui.domain.compiles import ChatMessage, CompileSpec, Usage
from dspyui.domain.engine import Ask, CallGate, OnError, OnTrial, Prediction
from dspyui.domain.lms import EmbedderSpec, LMRoles, LMSpec
from dspyui.domain.metrics import MetricFiles
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import CompiledProgram, Neighbours, ProgramSpec
from dspyui.domain.providers import secret_variables
from dspyui.domain.signatures import Row
from dspyui.domain.traces import PHASE_TAG, Trace, TraceSink
from dspyui.errors import DSPyUIError, FailedError, RefusedError
from dspyui.settings import Redactor

# Replies are small; the disk cache is bounded so that it cannot fill a disk unseen.
CACHE_BYTES = 2 * 1024**3


class DspyEngine:
    """Implements `domain.engine.Engine`. One engine a process: DSPy's cache is a global."""

    def __init__(
        self,
        roles: LMRoles,
        *,
        environment: Mapping[str, str],
        cache_folder: Path,
        local_base_url: str | None = None,
        compile_sink: TraceSink | None = None,
        metric_files: MetricFiles | None = None,
        gate: CallGate | None = None,
    ) -> None:
        """`local_base_url` is needed when a role is played by the bundled model.

        `compile_sink` takes the traces of what an optimizer calls; None keeps none of them. `metric_files` holds
        people's own metrics; None: there are none. `gate` holds back the calls of a batch, whose replies are kept on
        disk alone: it has no end that memory could hold.
        """
        self._roles = roles
        self._local_base_url = local_base_url
        self._metric_files = metric_files
        self._environment = environment
        self._redact = Redactor(environment.items(), secret_variables(roles))
        self._compile_sink = compile_sink
        self._meter = Meter(self._redact, gate)
        lms.limit_waits()
        lms.remember_prices()
        limit_calls()
        self._cache = MeteredCache(
            self._meter,
            enable_disk_cache=True,
            enable_memory_cache=gate is None,
            disk_cache_dir=str(cache_folder),
            disk_size_limit_bytes=CACHE_BYTES,
            restrict_pickle=True,
        )
        # DSPy reads its cache from the module's attribute at each call.
        dspy.cache = self._cache  # pyright: ignore[reportAttributeAccessIssue]
        if local_base_url is not None:
            lms.register_local(local_base_url)
        self._task = self._settings(roles.task)
        self._teacher = self._settings(roles.teacher) if roles.teacher else {}
        self._prompt = self._settings(roles.prompt) if roles.prompt else self._task

    def close(self) -> None:
        """Let go of the cache's files: a process that makes an engine for each call would run out of handles."""
        disk = self._cache.disk_cache
        if not isinstance(disk, dict):  # DSPy's stand-in when there is no cache on disk
            disk.close()

    def _settings(self, spec: LMSpec) -> dict[str, Any]:
        with self._mapped_errors():
            return {"lm": lms.to_dspy(spec, self._environment), "adapter": lms.adapter_for(spec)}

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except LMError as exc:
            raise lms.failed(exc, self._redact) from exc

    @contextmanager
    def _optimising(self, optimizer: OptimizerSpec, failures: "_Failures") -> Iterator[None]:
        try:
            with self._working():
                yield
        except DSPyUIError:
            raise
        except optimizers.StoppedError as exc:
            raise exc.error from exc
        except Exception as exc:
            # Optimizers raise whatever comes; what a person needs is the LM's own error, when there is one behind it.
            if (behind := _lm_error_behind(exc)) is not None:
                raise lms.failed(behind, self._redact) from exc
            # DSPy stops after a number of errors without saying which.
            last = f" {failures.last}" if failures.last else ""
            problem = self._redact(f"{type(exc).__name__}: {exc}{last}")[:500]
            raise FailedError("optimizer.stopped", optimizer=optimizer.info.label, problem=problem) from exc

    @contextmanager
    def _working(self, repeat: int = 0) -> Iterator[None]:
        with self._watching(), dspy.context(**self._task | {"lm": _asked_again(self._task["lm"], repeat)}):
            yield

    @contextmanager
    def _watching(self) -> Iterator[None]:
        watch = {"callbacks": [self._meter], "usage_tracker": self._meter, "disable_history": False}
        with self._mapped_errors(), dspy.context(**watch):
            yield

    def score_tools(self, *, repeat: int = 0) -> DspyScoreTools:
        """What metrics need: the judge (else the task LM), the embedder, people's own metrics."""
        spec = self._roles.judge or self._roles.task
        return DspyScoreTools(
            judge=lambda: _asked_again(self._settings(spec)["lm"], repeat),
            embedder=lambda: embedder_of(
                self._roles.embedder,
                self._environment,
                self._local_base_url,
                spent=self._meter.add_embedding,
                redact=self._redact,
            ),
            files=self._metric_files,
            watching=self._watching,
            redact=self._redact,
        )

    def _tools(self) -> modules.Tools:
        return modules.Tools(self.score_tools(), self._teacher)

    def build(self, spec: ProgramSpec) -> dspy.Module:
        """A fresh program."""
        return modules.build(spec, self._tools())

    def load(self, program: CompiledProgram) -> dspy.Module:
        """A program from its data."""
        return modules.load(program, self._tools())

    def ask(self, prompt: str) -> str:
        """What the task's LM answers to a plain question. Raises FailedError when it failed, or answered nothing."""
        with self._working():
            said = self._task["lm"](prompt)[0]
        text = said.get("text") if isinstance(said, dict) else said
        return str(text or "")

    def predict(self, live: dspy.Module, inputs: Row, *, tags: Mapping[str, str]) -> Prediction:
        """One call. Raises FailedError when the LM failed."""
        with self._working():
            return _predict(live, inputs, tags, [])

    def predict_all(
        self,
        live: dspy.Module,
        rows: Sequence[Row],
        *,
        threads: int,
        tags: Mapping[str, str],
        on_done: Callable[[int, Prediction], None],
        repeat: int = 0,
    ) -> None:
        """Every row, `threads` at a time. An LM that refuses, or an error of `on_done`, ends it: rows not begun are
        not begun.
        """

        ended = threading.Event()

        def one(index: int, row: Row) -> None:
            # A thread takes its next row before whoever waits for the threads could stop it.
            if ended.is_set():
                return
            try:
                on_done(index, self._predicted(live, row, {**tags, "dspyui.row": str(index)}))
            except BaseException:
                ended.set()
                raise

        with self._working(repeat), ThreadPoolExecutor(max_workers=threads) as pool:
            tasks = [pool.submit(copy_context().run, one, index, row) for index, row in enumerate(rows)]
            try:
                for task in as_completed(tasks):
                    task.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def asking(self, live: dspy.Module) -> Iterator[Ask]:
        """See the protocol. DSPy's own list of what was called, which only optimizers read, is not kept."""
        with self._working(), dspy.context(trace=None):
            context = copy_context()

            def ask(inputs: Row, tags: Mapping[str, str]) -> Prediction:
                # A context can be entered by one thread at a time; a copy costs next to nothing.
                return context.copy().run(self._answered, live, inputs, tags)

            yield ask

    def _answered(self, live: dspy.Module, inputs: Row, tags: Mapping[str, str]) -> Prediction:
        traces: list[Trace] = []
        try:
            return _predict(live, inputs, tags, traces)
        except (LMError, RefusedError) as exc:
            failure = exc if isinstance(exc, RefusedError) else lms.failed(exc, self._redact)
            prompt = _prompt(traces[-1])
            return Prediction(outputs=None, error=None, failure=failure, prompt=prompt, trace=traces[-1])

    def _predicted(self, live: dspy.Module, inputs: Row, tags: Mapping[str, str]) -> Prediction:
        """One call, its failure told in the prediction. Raises RefusedError: the next row would meet the same."""
        traces: list[Trace] = []
        try:
            return _predict(live, inputs, tags, traces)
        except LMError as exc:
            failure = lms.failed(exc, self._redact)
            if isinstance(failure, RefusedError):
                raise failure from exc
            return Prediction(
                outputs=None, error=None, failure=failure, prompt=_prompt(traces[-1]), trace=traces[-1]
            )

    def optimise(
        self,
        live: dspy.Module,
        spec: CompileSpec,
        *,
        train: Sequence[Row],
        validation: Sequence[Row],
        on_trial: OnTrial | None = None,
        on_error: OnError | None = None,
    ) -> dspy.Module:
        """What the optimizer makes of the program. Raises FailedError when it ends without a result."""
        told = on_trial or (lambda _label, _score, _rows: None)
        failures = _Failures(on_error or (lambda _error: None), self._redact)
        task = optimizers.Task(
            spec=spec,
            tools=self._tools(),
            train=optimizers.to_examples(optimizers.shuffled(train, spec.seed), spec.program),
            validation=optimizers.to_examples(validation, spec.program),
            prompt=self._prompt["lm"],
            on_trial=told,
            on_failure=failures,
        )
        keep = self._compile_sink.write if self._compile_sink else None
        trials = optimizers.Trials(task.validation, told)
        with (
            self._meter.keeping(keep, {PHASE_TAG: "optimising"}, failures),
            self._optimising(spec.optimizer, failures),
            dspy.context(callbacks=[self._meter, trials]),
        ):
            return optimizers.optimise(live, task)

    def dump(
        self, live: dspy.Module, spec: ProgramSpec, optimizer: OptimizerSpec, lm: LMSpec
    ) -> CompiledProgram:
        """The program as data. An address is a fact of the place it ran in and stays behind."""
        neighbours = live.neighbours if isinstance(live, modules.KNNFewShot) else None
        asks = {made.info.needs for made in (spec.module.reward, neighbours and neighbours.metric) if made}
        return CompiledProgram(
            spec=spec,
            lm=_placeless(lm),
            optimizer=optimizer,
            state=modules.dump_state(live),
            signature_digest=spec.signature.digest(),
            neighbours=neighbours and _placeless_neighbours(neighbours),
            judge=_placeless(self._roles.judge) if "judge" in asks else None,
            embedder=_placeless(self._roles.embedder) if "embedder" in asks else None,
            versions=self.versions(),
        )

    def usage(self) -> Usage:
        """What the LMs were asked so far."""
        return self._meter.usage()

    def lm_errors(self) -> int:
        """How many LM calls failed so far, those included that an optimizer passed over in silence."""
        return self._meter.lm_errors

    def versions(self) -> dict[str, str]:
        """Versions of dspy, dspyui and python."""
        return {"dspy": dspy.__version__, "dspyui": __version__, "python": platform.python_version()}


class _Failures:
    """Takes what goes wrong while an optimizer works, tells `on_error` of what a model failed to give, and keeps the
    last word of it all. A refusal, and what `on_error` raises, end the optimizer.
    """

    def __init__(self, on_error: OnError, redact: Redactor) -> None:
        self._on_error = on_error
        self._redact = redact
        self.last = ""

    def __call__(self, exc: BaseException) -> None:
        if JUDGING.get() or not isinstance(exc, Exception):
            return
        error = lms.failed(exc, self._redact) if isinstance(exc, LMError) else exc
        self.last = " ".join(str(error).split())
        # InferRules asks again with fewer rows when its prompt was too long.
        if not isinstance(error, FailedError) or error.code == "engine.context_window":
            return
        try:
            # One request that a provider will not take is one row, or one candidate, less.
            if isinstance(error, RefusedError) and error.code != "engine.invalid_request":
                raise error
            self._on_error(error)
        except DSPyUIError as stop:
            raise optimizers.StoppedError(stop) from exc


def _lm_error_behind(exc: BaseException) -> LMError | None:
    seen: BaseException | None = exc
    while seen is not None and not isinstance(seen, LMError):
        seen = seen.__cause__ or seen.__context__
    return seen


_Spec = TypeVar("_Spec", LMSpec | None, EmbedderSpec | None, LMSpec, EmbedderSpec)


def _placeless(spec: _Spec) -> _Spec:
    """The model without the port of the bundled one's server."""
    return spec.model_copy(update={"api_base": None}) if spec is not None and spec.is_local else spec


def _placeless_neighbours(neighbours: Neighbours) -> Neighbours:
    return neighbours.model_copy(
        update={"embedder": _placeless(neighbours.embedder), "teacher": _placeless(neighbours.teacher)}
    )


# A repeat's number as DSPy's cache knows it. Modules that try several times count on from it.
_ROLLOUTS_APART = 1_000


def _asked_again(lm: dspy.LM, repeat: int) -> dspy.LM:
    """The LM for a repeat of what it was asked before: it must answer anew, not from the cache."""
    if repeat == 0:
        return lm
    if lm.kwargs.get("temperature") == 0:
        # DSPy takes no second answer from a model that always gives the same one; the server may still differ.
        return lm.copy(cache=False)
    return lm.copy(rollout_id=repeat * _ROLLOUTS_APART)


def _predict(live: dspy.Module, inputs: Row, tags: Mapping[str, str], traces: list[Trace]) -> Prediction:
    finished, tagged = FINISHED.set(traces.append), TRACE_TAGS.set(tags)
    try:
        outputs, error = modules.clean(live(**inputs).toDict()), None
    except (AdapterParseError, RecursionError) as exc:  # a reply can be brackets without end
        outputs, error = None, modules.clean(" ".join(str(exc).split())[:1000])
    except RefusedError:
        raise
    except FailedError as exc:  # a judge that rewards attempts, and rewarded none
        outputs, error = None, str(exc)
    finally:
        FINISHED.reset(finished)
        TRACE_TAGS.reset(tagged)
    trace = traces[-1]
    return Prediction(outputs=outputs, error=error, prompt=_prompt(trace), trace=trace)


def _prompt(trace: Trace) -> tuple[ChatMessage, ...]:
    """The messages of the program's last LM call, as they were sent; a judge's call has a prompt, not messages."""
    asked = [span.inputs["messages"] for span in trace.spans if span.kind == "LLM"]
    messages = next((found for found in reversed(asked) if isinstance(found, list)), [])
    return tuple(ChatMessage(role=m["role"], content=str(m["content"])) for m in messages)
