"""A registered version where DSPyUI is not installed: loaded, and served by MLflow itself."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import httpx
import pytest

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.adapters.mlflow_store.registry import MlflowModelRegistry
from dspyui.adapters.mlflow_store.runs import MlflowRunStore
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.lms import EmbedderSpec, LMRoles, LMSpec
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import MODULES, ModuleSpec, ProgramSpec
from dspyui.domain.registry import RegisterRequest
from tests.conftest import end_process, free_port
from tests.contracts.fakes import StaticTracking
from tests.elsewhere import OUR_CODE, python_elsewhere
from tests.fake_openai import FakeOpenAI, chat, last_input
from tests.learner import SIGNATURE, learn, rows
from tests.mlflow_world import RunMaker, compiled
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
# Where `bash test.sh --all` puts what a registered model names.
MODEL = Path(sys.prefix) / "model"
EXAMPLE = {"message": "my lamp", "count": 2, "tags": ["x", "y"]}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The `bin` folder of a Python that has everything that is installed here except DSPyUI."""
    folder = python_elsewhere(tmp_path_factory.mktemp("elsewhere") / "venv")
    _as_a_command(folder, "uvicorn")
    return folder


def _as_a_command(folder, module):
    """As pip would have installed it; MLflow starts it by name."""
    command = folder / module
    command.write_text(f'#!/bin/sh\nexec "{folder}/python" -m {module} "$@"\n', encoding="utf-8")
    command.chmod(0o755)


@pytest.fixture
def environment(elsewhere, mlflow_address):
    path = f"{elsewhere}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": mlflow_address}


@pytest.fixture
def register(settings, mlflow_address, tmp_path):
    tracking = StaticTracking(mlflow_address)
    make_run = RunMaker(MlflowRunStore(settings, tracking), tmp_path)

    def register(lm=None, program=None, example=EXAMPLE):
        program = program or compiled(lm=lm)
        request = RegisterRequest(
            run_id=make_run(program), name=f"产品 {tmp_path.name}", who="李雷", stage="Staging"
        )
        return MlflowModelRegistry(settings, tracking).register(
            request, program, tags={}, input_example=example
        )

    return register


LOAD = """
import json, sys, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
print(json.dumps(model.predict(json.loads(sys.argv[2])), ensure_ascii=False))
"""


def load_and_predict(elsewhere, environment, uri, rows):
    asked = [str(elsewhere / "python"), "-c", LOAD, uri, json.dumps(rows)]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_loaded_by_stage_with_the_bundled_model(elsewhere, environment, register):
    version = register(LMSpec(temperature=0, max_tokens=60))
    (row,) = load_and_predict(elsewhere, environment, f"models:/{version.name}/Staging", [EXAMPLE])
    assert set(row) == {"product", "price", "urgent", "kind"}
    assert isinstance(row["price"], float)
    assert isinstance(row["urgent"], bool)
    assert row["kind"] in {"问题", "praise"}


def test_loaded_by_alias_with_another_model(elsewhere, environment, register):
    version = register(LMSpec())
    with FakeOpenAI(lambda messages: chat(product="x", price=1, urgent="False", kind="问题")) as lm:
        said = {
            "DSPYUI_LM_MODEL": "openai/other",
            "DSPYUI_LM_API_BASE": lm.base_url,
            "DSPYUI_LM_API_KEY": "sk-1",
        }
        uri = f"models:/{version.name}@staging"
        (row,) = load_and_predict(elsewhere, {**environment, **said}, uri, [EXAMPLE])
    assert row == {"product": "x", "price": 1.0, "urgent": False, "kind": "问题"}
    assert lm.keys == ["Bearer sk-1"]


def optimised(server, folder, kind, reward, optimizer):
    """A program that the engine has compiled, and what the engine says to three rows."""
    roles = LMRoles(
        task=LMSpec(model="openai/fake", api_base=server.base_url, cache=False),
        teacher=LMSpec(model="openai/teacher", api_base=server.base_url, cache=False),
        embedder=EmbedderSpec(model="openai/words", api_base=server.base_url),
    )
    engine = DspyEngine(roles, environment={}, cache_folder=folder)
    spec = CompileSpec(
        program=ProgramSpec(signature=SIGNATURE, module=ModuleSpec(kind=kind, reward=reward)),
        lms=roles,
        optimizer=OptimizerSpec(kind=optimizer),
        data={"rows": rows(8)},
    )
    live = engine.optimise(engine.build(spec.program), spec, train=rows(8), validation=[])
    asked = [{"message": row["message"]} for row in rows(3, start=40)]
    said = [engine.predict(live, row, tags={}).outputs for row in asked]
    return engine.dump(live, spec.program, spec.optimizer, roles.task), asked, said


@pytest.mark.parametrize("optimizer", ["bootstrap_few_shot", "knn_few_shot"])
@pytest.mark.parametrize("kind", MODULES)
def test_every_module_predicts_there_as_here(elsewhere, environment, register, tmp_path, kind, optimizer):
    reward = MetricSpec(kind="llm_judge") if MODULES[kind].rewards else None
    judged = []

    def reply(messages):
        if "`product`" in messages[0]["content"] or "`rationale`" in messages[0]["content"]:
            return learn(messages)
        judged.append(messages)
        return "10"

    with FakeOpenAI(reply) as server:
        program, asked, said = optimised(server, tmp_path / "cache", kind, reward, optimizer)
        version = register(program=program, example=asked[0])
        before = len(server.requests)
        prompts = sorted(server.prompts()[-1:])
        told = {"DSPYUI_LM_API_BASE": server.base_url}
        found = load_and_predict(elsewhere, {**environment, **told}, f"models:/{version.name}/Staging", asked)
        assert found == said
        assert [row["product"] for row in found] == ["thing40", "thing41", "thing42"]
        assert prompts[0] in server.prompts()[before:], "the very same prompt"
        models = {request["model"] for request in server.requests[before:]}
        assert models == ({"fake", "teacher"} if optimizer == "knn_few_shot" else {"fake"})
    assert bool(judged) == MODULES[kind].rewards


def answer(messages):
    return chat(product=last_input(messages, "message").split()[-1], price=2.5, urgent="True", kind="praise")


def served(elsewhere, environment, uri, rows, log):
    """What `mlflow models serve`, started by the Python there, answers to some rows."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    served = ["mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
    listening = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(elsewhere / "python"), "-m", *served, *listening],
            env=environment,
            stdout=output,
            stderr=output,
        )
        try:
            wait_until(lambda: process.poll() is not None or _pings(address), seconds=120)
            reply = httpx.post(f"{address}/invocations", json={"dataframe_records": rows}, timeout=60)
        finally:
            end_process(process)
    assert reply.status_code == 200, reply.text
    return reply.json()["predictions"]


LAMPS = [{**EXAMPLE, "message": f"my lamp{i}"} for i in range(3)]
ANSWERED = [{"product": f"lamp{i}", "price": 2.5, "urgent": True, "kind": "praise"} for i in range(3)]


def test_served_by_mlflow(elsewhere, environment, register, tmp_path):
    version = register(LMSpec(model="openai/mine"))
    with FakeOpenAI(answer) as lm:
        environment |= {"DSPYUI_LM_API_BASE": lm.base_url}
        assert served(elsewhere, environment, version.model_uri, LAMPS, tmp_path / "serve.log") == ANSWERED


def test_loaded_and_served_where_its_own_requirements_alone_are_installed(
    register, mlflow_address, tmp_path, tmp_path_factory
):
    """`bash test.sh --all` installs what a model names into a folder of its own, and nothing else."""
    version = register(LMSpec(model="openai/mine"))
    uri = f"models:/{version.name}/Staging"
    told = {**os.environ, "MLFLOW_TRACKING_URI": mlflow_address}
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "artifacts",
        "download",
        "-u",
        version.model_uri,
        "-d",
        "model",
    ]
    subprocess.run(command, env=told, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    named = (tmp_path / "model" / "requirements.txt").read_text(encoding="utf-8").split()
    installed = {found.name.lower(): found.version for found in metadata.distributions(path=[str(MODEL)])}
    assert sorted(named) == [f"{name}=={installed.get(name)}" for name in ("dspy", "mlflow")]
    assert installed.keys().isdisjoint({"dspyui", "nicegui", "dbos"})
    python = python_elsewhere(tmp_path_factory.mktemp("fresh") / "venv", MODEL, others=False)
    _as_a_command(python, "uvicorn")
    path = f"{python}{os.pathsep}{os.environ['PATH']}"
    with FakeOpenAI(answer) as lm:
        told |= {"PATH": path, "DSPYUI_LM_API_BASE": lm.base_url}
        assert load_and_predict(python, told, uri, LAMPS) == ANSWERED
        assert served(python, told, version.model_uri, LAMPS, tmp_path / "serve.log") == ANSWERED


def _pings(address):
    try:
        return httpx.get(f"{address}/ping", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def test_the_interpreter_of_these_tests_has_dspyui():
    """Else the environment without it would show nothing."""
    assert subprocess.run([sys.executable, "-c", OUR_CODE], check=False).returncode == 0
