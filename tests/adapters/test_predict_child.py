"""A prediction in a process of its own, against a fake LM server: text, keys, and who ends with whom."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import SecretStr

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.adapters.dspy_engine.runner import ChildRunner
from dspyui.adapters.mlflow_store.spool import read_frames
from dspyui.bootstrap import make_app
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.engine import Patience, ProgramCall
from dspyui.domain.lms import EmbedderSpec, LMRoles, LMSpec
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import MODULES, CompiledProgram, ModuleSpec, ProgramSpec
from dspyui.domain.signatures import FieldSpec, SignatureSpec
from dspyui.errors import CancelledError, FailedError
from dspyui.services.predict import Caller, loose
from dspyui.settings import Settings
from tests.fake_openai import FakeOpenAI, Fault, chat, last_input
from tests.learner import SIGNATURE as LEARNED
from tests.learner import learn, rows
from tests.waiting import wait_ended, wait_until

KEY = "sk-0123456789abcdef"
SIGNATURE = SignatureSpec(inputs=(FieldSpec(name="q"),), outputs=(FieldSpec(name="a"),))
STATE = {
    "traces": [],
    "train": [],
    "demos": [],
    "lm": None,
    "signature": {
        "instructions": "Answer.",
        "fields": [{"prefix": "Q:", "description": "${q}"}, {"prefix": "A:", "description": "${a}"}],
    },
}


@pytest.fixture
def server():
    with FakeOpenAI(lambda messages: chat(a=last_input(messages, "q"))) as fake:
        yield fake


def environment(home):
    return {
        "PATH": os.environ["PATH"],
        "DSPYUI_HOME": str(home),
        "SOME_API_KEY": KEY,
        "MLFLOW_ENABLED": "false",
    }


def make(folder, **more):
    folder.mkdir(exist_ok=True)
    return make_app(Settings.load(folder / "no.env", {**environment(folder / "data"), **more}))


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """One for all tests of a file: its processes stay for the next test."""
    app = make(tmp_path_factory.mktemp("app"))
    yield app
    app.runner.close()


@pytest.fixture
def fresh(tmp_path):
    """One of the test's own, of which no process is left over."""
    before = children()
    app = make(tmp_path / "fresh")
    yield app
    app.runner.close()
    assert children() == before


@pytest.fixture(scope="module")
def tracing(tmp_path_factory):
    """One that traces its calls, and its data folder."""
    folder = tmp_path_factory.mktemp("tracing")
    app = make(folder, MLFLOW_ENABLED="true")
    yield app, folder / "data"
    app.runner.close()


def program(server, **lm):
    options = {"model": "openai/fake", "api_base": server.base_url, "num_retries": 0, "cache": False, **lm}
    return CompiledProgram(
        spec=ProgramSpec(signature=SIGNATURE),
        lm=LMSpec(**options),
        optimizer=OptimizerSpec(kind="none"),
        state=STATE,
        signature_digest=SIGNATURE.digest(),
    )


def children():
    """The predictions' processes; servers that other tests share are children of this process too."""
    found = psutil.Process().children(recursive=True)
    alive = [child for child in found if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if "dspyui.bootstrap" in child.cmdline()]


@pytest.mark.parametrize("text", ["中文 😀", "two\u2028lines\u2029and\x85more"])
def test_text_of_any_script_goes_there_and_back(app, server, text):
    outcome = app.services.predict.with_program(program(server), {"q": text})
    assert text in outcome.prompt[-1].content
    assert outcome.outputs["a"].split() == text.split()


def test_half_a_character_in_a_reply_is_no_error(app, server):
    server.reply = lambda _messages: '{"a": "so \\ud83d"}'
    assert app.services.predict.with_program(program(server), {"q": "x"}).outputs == {"a": "so ?"}


def test_a_child_that_breaks_tells_no_key(app, server):
    broken = program(server).model_copy(update={"state": {"signature": {"fields": KEY}}})
    with pytest.raises(FailedError) as caught:
        app.services.predict.with_program(broken, {"q": "x"})
    assert KEY not in str(caught.value)


def test_closing_ends_a_prediction_that_hangs(fresh, server):
    app, before = fresh, children()
    server.hold(after=0)
    raised = []

    def predict():
        with pytest.raises(FailedError) as caught:
            app.services.predict.with_program(program(server), {"q": "x"})
        raised.append(caught.value.code)

    waiting = threading.Thread(target=predict)
    waiting.start()
    wait_until(lambda: server.requests, seconds=60)
    app.close()
    waiting.join(timeout=60)
    assert raised == ["predict.died"]
    assert children() == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODULES)
def test_a_program_of_knn_predicts_in_a_fresh_process_as_in_the_one_that_made_it(app, server, tmp_path, kind):
    """The hardest to keep: rows, embedder, metric and teacher are needed at each call, and the reward's judge too."""
    server.reply = lambda m: learn(m) if "Your output fields are" in m[0]["content"] else "10"
    lm = LMSpec(model="openai/fake", api_base=server.base_url, cache=False)
    roles = LMRoles(
        task=lm,
        teacher=lm.model_copy(update={"model": "openai/teacher"}),
        judge=lm.model_copy(update={"model": "openai/judge"}),
        embedder=EmbedderSpec(model="openai/words", api_base=server.base_url),
    )
    engine = DspyEngine(roles, environment={}, cache_folder=tmp_path / "cache")
    spec = CompileSpec(
        program=ProgramSpec(
            signature=LEARNED,
            module=ModuleSpec(
                kind=kind, reward=MetricSpec(kind="llm_judge") if MODULES[kind].rewards else None
            ),
        ),
        lms=roles,
        optimizer=OptimizerSpec(kind="knn_few_shot"),
        data={"rows": rows(8)},
    )
    live = engine.optimise(engine.build(spec.program), spec, train=rows(8), validation=[])
    asked = {"message": rows(1, start=41)[0]["message"]}
    here = engine.predict(live, asked, tags={})
    kept = engine.dump(live, spec.program, spec.optimizer, lm)
    before = len(server.requests)
    there = app.services.predict.with_program(CompiledProgram.from_json(kept.to_json(), where="here"), asked)
    assert there.outputs == here.outputs
    assert there.outputs["product"] == "thing41"
    assert there.prompt == here.prompt
    models = {request["model"] for request in server.requests[before:]}
    assert models == {"fake", "teacher", *(["judge"] if MODULES[kind].rewards else [])}


def ask(app, server, text="x", *, patience=None, **lm):
    return app.services.predict.ask(
        loose(program(server, **lm)), {"q": text}, patience=patience or Patience()
    )


def test_the_second_call_starts_no_process(fresh, server):
    before, phases = children(), []
    ask(fresh, server, "one", patience=Patience(on_phase=phases.append))
    (child,) = started = [each for each in children() if each not in before]
    handles = child.num_fds()
    ask(fresh, server, "two", model="openai/other", patience=Patience(on_phase=phases.append))
    fresh.services.predict.warm()
    assert [each for each in children() if each not in before] == started == [child]
    assert phases == ["queued", "starting", "asking", "queued", "asking"]
    assert [request["model"] for request in server.requests] == ["fake", "other"]
    # A process that stays must not gather open files, call by call, until it can open no more.
    ask(fresh, server, "three")
    assert child.num_fds() <= handles + 1


def test_a_process_that_was_warmed_answers_the_first_call(fresh, server):
    before = children()
    for _ in range(2):
        fresh.services.predict.warm()
    (child,) = [each for each in children() if each not in before]
    ask(fresh, server)
    assert [each for each in children() if each not in before] == [child]


def test_what_a_call_took_is_its_own(app, server):
    first, second = ask(app, server), ask(app, server)
    assert (first.usage.lm_calls, first.usage) == (1, second.usage)


def test_a_call_that_is_cancelled_ends_soon_and_the_next_is_answered(app, server):
    ask(app, server)
    before = children()
    server.hold(after=1)
    cancelled, raised = threading.Event(), []

    def call():
        with pytest.raises(CancelledError) as caught:
            ask(app, server, patience=Patience(cancelled=cancelled))
        raised.append(caught.value.code)

    waiting = threading.Thread(target=call)
    waiting.start()
    wait_until(lambda: len(server.requests) == 2, seconds=60)
    cancelled.set()
    waiting.join(timeout=60)
    assert raised == ["predict.cancelled"]
    assert len(children()) == len(before) - 1
    server.release()
    assert ask(app, server, "again").outputs == {"a": "again"}


def test_a_call_is_stopped_when_its_time_is_up(app, server):
    ask(app, server)
    before = children()
    server.hold(after=1)
    with pytest.raises(FailedError) as caught:
        ask(app, server, patience=Patience(seconds=0.5))
    assert caught.value.code == "predict.timeout"
    assert "0.5 s" in str(caught.value)
    assert len(children()) == len(before) - 1


@pytest.mark.slow
def test_four_programs_are_asked_at_the_same_time(fresh, server):
    before = children()
    server.hold(after=0)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, fresh, server, f"q{number}") for number in range(4)]
        wait_until(lambda: len(server.requests) == 4, seconds=120)
        server.release()
        assert [task.result().outputs["a"] for task in asked] == ["q0", "q1", "q2", "q3"]
    assert len(children()) == len(before) + 4


def test_a_key_that_is_typed_in_reaches_the_next_call(app, server):
    ask(app, server)
    app.services.lms.set_key("DSPYUI_LM_API_KEY", SecretStr("typed-in-0123456789"))
    try:
        ask(app, server)
    finally:
        app.services.lms.clear_key("DSPYUI_LM_API_KEY")
    assert server.keys == ["Bearer none", "Bearer typed-in-0123456789"]


def test_a_process_that_ran_ones_own_code_answers_nobody_else(app, server):
    app.services.predict.warm()
    before = children()
    metrics = app.services.settings.home / "metrics"
    metrics.mkdir(parents=True)
    (metrics / "mine.py").write_text("def metric(example, prediction):\n    return 1.0\n")
    own = MetricSpec(kind="custom", params={"name": "mine"})
    module = ModuleSpec(kind="best_of_n", params={"module": "predict"}, reward=own)
    plain = program(server)
    best = plain.model_copy(
        update={
            "spec": plain.spec.model_copy(update={"module": module}),
            "state": {"module": STATE},
        }
    )
    assert app.services.predict.with_program(best, {"q": "x"}).outputs == {"a": "x"}
    after = children()
    assert len(after) == len(before) - 1
    assert set(after) < set(before)


def test_a_process_that_nobody_asks_ends_by_itself(server, tmp_path):
    before = children()
    settings = Settings.load(tmp_path / "no.env", environment(tmp_path / "data"))
    runner = ChildRunner(settings, None, idle_seconds=0.2)
    call = ProgramCall(program=program(server), lms=program(server).roles(), inputs={"q": "x"})
    try:
        assert runner.predict(call, Patience()).outputs == {"a": "x"}
        wait_until(lambda: children() == before, seconds=30)
    finally:
        runner.close()


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (lambda messages: chat(a=last_input(messages, "q")), None),
        (lambda _messages: "no such fields", "predict.unreadable"),
        (lambda _messages: Fault(400, f"who is {KEY}?"), "engine.invalid_request"),
    ],
    ids=["answered", "unreadable", "refused"],
)
def test_a_call_leaves_its_trace_on_disk_whatever_came_of_it(server, tracing, reply, code):
    app, data = tracing
    server.reply = reply
    outcome = app.services.predict.ask(
        loose(program(server)), {"q": "你好"}, caller=Caller(who="李雷", source="test")
    )
    assert (outcome.fault and outcome.fault.code) == code
    assert KEY not in str(outcome)
    assert "你好" in outcome.prompt[-1].content
    assert app.services.feedback.waiting() == 1
    assert app.services.feedback.trace(outcome.trace_id).status == "waiting"
    (segment,) = (data / "spool" / "calls").glob("*.otlp")
    content = segment.read_bytes()
    segment.unlink()
    (frame,) = read_frames(content)
    request = ExportTraceServiceRequest.FromString(frame)
    spans = request.resource_spans[0].scope_spans[0].spans
    assert f"tr-{spans[0].trace_id.hex()}" == outcome.trace_id
    tags = {each.key: each.value.string_value for each in spans[0].attributes}
    assert tags["mlflow.traceTag.dspyui.source"] == "test"
    assert tags["mlflow.traceTag.dspyui.user"] == "李雷"
    assert tags["mlflow.traceTag.dspyui.model_name"] == "program"
    assert len(spans) >= 2
    assert KEY.encode() not in content


SERVER = """
import asyncio, json, sys
import httpx
from dspyui.bootstrap import make_app
from dspyui.server import create_app
from dspyui.settings import Settings

app = make_app(Settings.load())
web = create_app(app.services)

async def call():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://127.0.0.1:7860") as client:
        body = {"program": json.loads(sys.argv[1]), "inputs": {"q": "x"}}
        return [(await client.post("/api/predict", json=body, timeout=90)).json() for _ in range(2)]

print(json.dumps([asyncio.run(call()), sorted({"dspy", "litellm"} & set(sys.modules))]))
app.close()
"""


@pytest.mark.slow
def test_the_web_server_itself_never_imports_dspy(server, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SERVER, program(server).to_json()], env=environment(tmp_path / "data"),
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers, imported = json.loads(done.stdout.splitlines()[-1])
    assert [answer["outputs"] for answer in answers] == [{"a": "x"}] * 2
    assert imported == []


ASKER = """
import sys
from dspyui.bootstrap import make_app
from dspyui.domain.programs import CompiledProgram
from dspyui.settings import Settings
program = CompiledProgram.model_validate_json(sys.argv[1])
make_app(Settings.load()).services.predict.with_program(program, {"q": "x"})
"""


def test_the_child_ends_with_a_killed_parent(server, tmp_path):
    server.hold(after=0)
    document = program(server).to_json()
    with subprocess.Popen(
        [sys.executable, "-c", ASKER, document], env=environment(tmp_path / "data"), cwd=tmp_path
    ) as asker:
        wait_until(lambda: server.requests, seconds=60)
        (child,) = psutil.Process(asker.pid).children()
        asker.kill()
    wait_ended([child])
