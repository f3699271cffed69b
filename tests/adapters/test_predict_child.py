"""A prediction in a process of its own, against a fake LM server: text, keys, and who ends with whom."""

import os
import subprocess
import sys
import threading

import psutil
import pytest

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.bootstrap import make_app
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.lms import EmbedderSpec, LMRoles, LMSpec
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import MODULES, CompiledProgram, ModuleSpec, ProgramSpec
from dspyui.domain.signatures import FieldSpec, SignatureSpec
from dspyui.errors import FailedError
from dspyui.settings import Settings
from tests.fake_openai import FakeOpenAI, chat, last_input
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


@pytest.fixture
def app(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = make_app(Settings.load(environ=environment(tmp_path / "data")))
    yield app
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
    assert children() == []


def test_closing_ends_a_prediction_that_hangs(app, server):
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
    assert children() == []


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
