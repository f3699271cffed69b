"""One prediction or test in a process of its own: the asking side, which imports no DSPy, and the answering side."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any, Literal, Protocol

from dspyui.domain.compiles import Usage
from dspyui.domain.engine import Engine, LMReply, PredictOutcome
from dspyui.domain.jobs import JobFailure
from dspyui.domain.lms import LMRoles, LMSpec, LocalLM
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.providers import secret_variables
from dspyui.domain.signatures import Row
from dspyui.errors import CancelledError, FailedError
from dspyui.settings import Settings

PREDICT_SECONDS = 300
# A person is waiting: the model gets this long to answer a test, its process some more to start and end.
TEST_SECONDS, START_SECONDS = 60.0, 60.0
TEST_PROMPT = "Reply with the word OK and nothing else."
# The bundled model would go on talking.
_LOCAL_TEST_TOKENS = 16
_LOOK_SECONDS = 0.1

Deed = Literal["predict", "test-lm"]


class ChildRunner:
    """Implements `domain.engine.ProgramRunner` and `domain.engine.LMTester`."""

    def __init__(self, settings: Settings, local_lm: LocalLM, local_url_variable: str) -> None:
        self._settings = settings
        self._local_lm = local_lm
        self._local_url_variable = local_url_variable
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def predict(
        self, program: CompiledProgram, lms: LMRoles, inputs: Row
    ) -> tuple[PredictOutcome | None, str]:
        """See the protocol. The process starts anew each time, which costs two or three seconds."""
        request = {
            "program": program.model_dump(mode="json"),
            "lms": lms.model_dump(mode="json"),
            "inputs": inputs,
        }
        reply = self._ask("predict", request, self._environment(lms))
        if reply["outcome"] is None:
            return None, reply["problem"]
        return PredictOutcome.model_validate(reply["outcome"]), ""

    def test(self, lm: LMSpec, cancelled: threading.Event) -> LMReply:
        """See the protocol."""
        limits: dict[str, Any] = {"cache": False, "num_retries": 0, "timeout": min(lm.timeout, TEST_SECONDS)}
        if lm.is_local and lm.max_tokens is None:
            limits["max_tokens"] = _LOCAL_TEST_TOKENS
        asked = lm.model_copy(update=limits)
        request = {"lm": asked.model_dump(mode="json")}
        seconds = asked.timeout + START_SECONDS
        reply = self._ask("test-lm", request, self._environment(LMRoles(task=lm)), seconds, cancelled)
        return LMReply.model_validate(reply["reply"])

    def _environment(self, lms: LMRoles) -> dict[str, str]:
        self._settings.keys.mark_secret(secret_variables(lms))
        environment = self._settings.worker_environment()
        if lms.uses_local:
            environment[self._local_url_variable] = self._local_lm.ensure()
        return environment

    def close(self) -> None:
        """Kill what still runs; whoever waits for it gets FailedError."""
        with self._lock:
            self._closed = True
            for child in self._children:
                _kill(child)

    def _ask(
        self,
        deed: Deed,
        request: Mapping[str, Any],
        environment: Mapping[str, str],
        seconds: float = PREDICT_SECONDS,
        cancelled: threading.Event | None = None,
    ) -> dict[str, Any]:
        """What the child answers. Raises the error it tells of."""
        reading, writing = os.pipe()
        # The other end stays open until the answer is there: its closing tells the child that we are gone.
        with os.fdopen(writing, "w", encoding="ascii") as asked:
            with os.fdopen(reading, "rb") as stdin:
                child = self._start(deed, stdin, environment)
            try:
                with suppress(BrokenPipeError):
                    asked.write(json.dumps(request) + "\n")
                    asked.flush()
                said, log = _wait(child, seconds, cancelled)
            finally:
                self._end(child)
        lines = said.split(b"\n")[:-1]
        if child.returncode or not lines:
            problem = self._settings.redact(log.decode(errors="replace").strip())[-500:]
            raise FailedError("predict.died", code=child.returncode, problem=problem)
        reply = json.loads(lines[-1])
        if failure := reply.get("failure"):
            known = JobFailure.model_validate(failure)
            raise FailedError(known.code, **known.values)
        return reply

    def _start(
        self, deed: Deed, stdin: IO[bytes], environment: Mapping[str, str]
    ) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._closed:
                raise FailedError("predict.died", code=0, problem="shutdown")
            child = subprocess.Popen(
                [sys.executable, "-m", "dspyui.bootstrap", deed],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(environment),
                start_new_session=True,
            )
            self._children.add(child)
        return child

    def _end(self, child: "subprocess.Popen[bytes]") -> None:
        with self._lock:
            _kill(child)
            self._children.discard(child)
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
        child.wait()


def _wait(
    child: "subprocess.Popen[bytes]", seconds: float, cancelled: threading.Event | None
) -> tuple[bytes, bytes]:
    """What it printed. Raises FailedError when it takes too long, CancelledError when nobody waits any more."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return child.communicate(timeout=_LOOK_SECONDS if cancelled else seconds)
        except subprocess.TimeoutExpired as exc:
            if cancelled is not None and cancelled.is_set():
                raise CancelledError("predict.cancelled") from exc
            if time.monotonic() >= deadline:
                raise FailedError("predict.timeout", seconds=round(seconds)) from exc


def _kill(child: "subprocess.Popen[bytes]") -> None:
    # A child that was reaped already has no id of its own any more.
    if child.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def answer(request: Mapping[str, Any], make_engine: Callable[[LMRoles], Engine]) -> dict[str, Any]:
    """Do what was asked. Raises DSPyUIError as the engine does."""
    program = CompiledProgram.model_validate(request["program"])
    engine = make_engine(LMRoles.model_validate(request["lms"]))
    live = engine.load(program)
    started = time.monotonic()
    prediction = engine.predict(live, request["inputs"], tags={})
    if prediction.outputs is None:
        return {"outcome": None, "problem": prediction.error}
    outcome = PredictOutcome(
        outputs=prediction.outputs,
        prompt=prediction.prompt,
        usage=engine.usage(),
        seconds=time.monotonic() - started,
    )
    return {"outcome": outcome.model_dump(mode="json")}


class Asking(Protocol):
    """What an engine can do that a test needs."""

    def ask(self, prompt: str) -> str: ...

    def usage(self) -> Usage: ...


def answer_test(request: Mapping[str, Any], make_engine: Callable[[LMRoles], Asking]) -> dict[str, Any]:
    """Ask the model once. Raises DSPyUIError as the engine does."""
    lm = LMSpec.model_validate(request["lm"])
    engine = make_engine(LMRoles(task=lm))
    started = time.monotonic()
    text = engine.ask(TEST_PROMPT).strip()
    reply = LMReply(text=text[:2000], seconds=time.monotonic() - started, usage=engine.usage())
    return {"reply": reply.model_dump(mode="json")}
