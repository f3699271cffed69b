"""A real MLflow behind https with a certificate of its own, which asks for a token or for user and password."""

import base64
import json
from pathlib import Path

import pytest

from dspyui.adapters.local_stack.mlflow_server import MlflowServer
from dspyui.adapters.mlflow_store.registry import MlflowModelRegistry
from dspyui.adapters.mlflow_store.runs import MlflowRunStore
from dspyui.adapters.mlflow_store.spool import FileTraceSink
from dspyui.domain.registry import RegisterRequest
from dspyui.domain.runs import ArtifactFile
from dspyui.errors import UnavailableError
from dspyui.i18n import Text
from dspyui.settings import Settings
from dspyui.ui.frame import banner_text
from tests.contracts.fakes import StaticTracking
from tests.mlflow_world import Authority, Proxy, RunMaker, compiled, make_trace
from tests.waiting import wait_until

# The proxy of these tests may be asked by a client that is already gone again; what Python's TLS makes of such a
# connection before the handshake nobody can close.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <ssl\.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)

TOKEN = "tok-a-very-secret-token"
PASSWORD = "pass-a-very-secret-word"
BEARER = f"Bearer {TOKEN}"
BASIC = "Basic " + base64.b64encode(f"李雷:{PASSWORD}".encode()).decode()
BY_TOKEN = {"MLFLOW_TRACKING_TOKEN": TOKEN}
BY_PASSWORD = {"MLFLOW_TRACKING_USERNAME": "李雷", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
EXAMPLE = {"message": "m", "count": 1, "tags": ["a"]}
LOGINS = [
    (BEARER, BY_TOKEN, "token"),
    (BASIC, BY_PASSWORD, "password"),
    (BASIC, {**BY_TOKEN, **BY_PASSWORD}, "password"),
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def make(environ, tmp_path, authority):
    """The tracking server as the program sees it, with its settings; closed at the end."""
    made = []

    def make(address, *, trusted=True, **variables):
        file = tmp_path / f"{len(made)}.env"
        if trusted:
            variables["MLFLOW_TRACKING_SERVER_CERT_PATH"] = str(authority.certificate)
        lines = [f"{name}={value}\n" for name, value in variables.items()]
        file.write_text("".join(lines), encoding="utf-8")
        settings = Settings.load(file, environ, home=tmp_path / "data", mlflow_tracking_uri=address)
        tracking = MlflowServer(settings)
        made.append(tracking)
        tracking.start()
        return settings, tracking

    yield make
    for tracking in made:
        tracking.close()


@pytest.mark.parametrize(("wanted", "login", "told"), LOGINS, ids=["token", "password", "password-first"])
def test_everything_goes_through_https_and_a_login(
    make, authority, mlflow_address, tmp_path, wanted, login, told
):
    with Proxy(mlflow_address, wants=wanted, context=authority.context()) as proxy:
        settings, tracking = make(proxy.address, **login)
        state = tracking.wait(10)
        assert (state.status, state.login) == ("ready", told)
        runs = MlflowRunStore(settings, tracking)
        registry = MlflowModelRegistry(settings, tracking)
        record = RunMaker(runs, tmp_path).record()
        spec = tmp_path / "compile.yaml"
        spec.write_text("program: 抽取\n", encoding="utf-8")
        more = ArtifactFile(file=spec, artifact_path="spec/compile.yaml")
        link = runs.send(record.model_copy(update={"artifacts": (*record.artifacts, more)}))
        sink = FileTraceSink(tmp_path / "traces")
        for _ in range(3):
            sink.write(make_trace())
        sink.close()
        assert runs.send_traces(tmp_path / "traces", link) == (3, 0)
        assert link.run_id in {run.run_id for run in runs.search_runs(limit=5000)}
        assert runs.spec(link.run_id) == "program: 抽取\n"
        assert runs.splits(link.run_id).test[0]["message"] == "你好 lamp"
        request = RegisterRequest(run_id=link.run_id, name=f"login {tmp_path.name}", who="x", stage="Staging")
        version = registry.register(request, compiled(), tags={}, input_example=EXAMPLE)
        assert registry.program(registry.get_by_stage(version.name, "Staging")).spec == compiled().spec
        assert {"/v1/traces", "/api/2.0/mlflow/runs/create"} <= set(proxy.paths)


@pytest.mark.parametrize(
    "login",
    [
        {"MLFLOW_TRACKING_TOKEN": "tok-that-is-wrong"},
        {},
        {**BY_PASSWORD, "MLFLOW_TRACKING_PASSWORD": "wrong-word"},
    ],
)
def test_a_wrong_login_is_refused_not_away(make, authority, mlflow_address, login):
    with Proxy(mlflow_address, wants=BEARER, context=authority.context()) as proxy:
        settings, tracking = make(proxy.address, **login)
        state = tracking.wait(10)
        assert (state.status, state.problem, state.can_start_local) == ("unreachable", "denied", False)
        with pytest.raises(UnavailableError) as caught:
            tracking.address()
        assert caught.value.code == "tracking.denied"
        with pytest.raises(UnavailableError) as asked:
            MlflowRunStore(settings, StaticTracking(proxy.address)).search_runs()
        assert asked.value.code == "mlflow.denied"
        said = [banner_text(state, Text(language)) for language in ("zh_CN", "en_US")]
        said += [exc.value.text(language) for exc in (caught, asked) for language in ("zh_CN", "en_US")]
    for sentence in said:
        assert "MLFLOW_TRACKING_TOKEN" in sentence
        assert proxy.address in sentence
        for value in login.values():
            assert value not in sentence


def test_a_login_that_only_the_api_asks_for_is_seen_too(make, authority, mlflow_address):
    # MLflow's own login leaves /health and others open.
    def rule(_method, path):
        return 403 if path.startswith("/api/") else None

    with Proxy(mlflow_address, rule, context=authority.context()) as proxy:
        _, tracking = make(proxy.address)
        assert (tracking.wait(10).status, tracking.state().problem) == ("unreachable", "denied")
        proxy.rule = lambda _method, _path: None
        wait_until(lambda: tracking.state().status == "ready")


def test_a_login_kept_in_mlflows_own_file_counts(make, authority, mlflow_address, environ, tmp_path):

    folder = Path(environ["HOME"]) / ".mlflow"
    folder.mkdir()
    (folder / "credentials").write_text(
        f"[mlflow]\nmlflow_tracking_username = 李雷\nmlflow_tracking_password = {PASSWORD}\n",
        encoding="utf-8",
    )
    with Proxy(mlflow_address, wants=BASIC, context=authority.context()) as proxy:
        settings, tracking = make(proxy.address)
        state = tracking.wait(10)
        assert (state.status, state.login) == ("ready", "file")
        MlflowRunStore(settings, tracking).search_runs()


def test_an_unknown_authority_is_told(make, authority, mlflow_address):
    with Proxy(mlflow_address, context=authority.context()) as proxy:
        settings, tracking = make(proxy.address, trusted=False)
        state = tracking.wait(10)
        assert (state.status, state.problem) == ("unreachable", "tls")
        with pytest.raises(UnavailableError):
            MlflowRunStore(settings, StaticTracking(proxy.address)).search_runs()


def test_any_certificate_will_do_when_told_so(make, authority, mlflow_address):
    with Proxy(mlflow_address, context=authority.context()) as proxy:
        settings, tracking = make(proxy.address, trusted=False, MLFLOW_TRACKING_INSECURE_TLS="true")
        assert tracking.wait(10).status == "ready"
        MlflowRunStore(settings, tracking).search_runs()


def test_traces_wait_while_the_login_is_refused(make, authority, mlflow_address, tmp_path):
    with Proxy(mlflow_address, context=authority.context()) as proxy:
        settings, tracking = make(proxy.address, **BY_TOKEN)
        assert tracking.wait(10).status == "ready"
        runs = MlflowRunStore(settings, tracking)
        link = runs.send(RunMaker(runs, tmp_path).record())
        sink = FileTraceSink(tmp_path / "traces")
        sink.write(make_trace())
        sink.close()
        proxy.rule = lambda _method, path: 401 if path == "/v1/traces" else None
        with pytest.raises(UnavailableError) as caught:
            runs.send_traces(tmp_path / "traces", link)
        assert caught.value.code == "mlflow.denied"
        proxy.rule = lambda _method, _path: None
        assert runs.send_traces(tmp_path / "traces", link) == (1, 0)
    assert TOKEN not in json.dumps([str(caught.value), str(caught.value.__cause__)])
