"""A key is found nowhere but in the requests to its server: not after a compile, a failure, a register, a restart.

Searched by value, URL-encoded and as in a Basic login: the data folder with jobs, logs, events and databases;
MLflow's database, artifacts and log; what the processes print; and the pages as a browser shows them.
"""

import gzip
import os
import secrets
import subprocess
import sys
import zlib
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import pyarrow as pa
import pytest
from playwright.sync_api import Page

from tests.fake_openai import FakeOpenAI, Fault, chat, last_input
from tests.program import Program
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

# Names that do not say that they hold a secret, and one that does.
IN_ENVIRONMENT, TYPED_IN = "MY_SERVER", "MY_TYPED_KEY"
BY_ROLE = {role: f"MY_{role.upper()}" for role in ("task", "prompt", "judge", "embedder")}
ROWS = [{"message": f"My thing{i}q broke.", "product": f"thing{i}q"} for i in range(20)]


def canary() -> str:
    """A key with characters that look different in an address."""
    return f"sk-{secrets.token_hex(12)}+/{secrets.token_hex(6)}=="


def forms(key: str) -> tuple[str, ...]:
    """How the key might be written somewhere."""
    basic = b64encode(f"user:{key}".encode()).decode()
    return (key, quote(key, safe=""), b64encode(key.encode()).decode().rstrip("="), basic.rstrip("="))


def answer(messages: list[dict[str, str]]) -> str:
    return chat(product=last_input(messages, "message").split()[1])


def refusal(key: str) -> Fault:
    """What a provider says that repeats the key it did not accept."""
    return Fault(401, f"Incorrect API key provided: {key}; {quote(key, safe='')}. Look it up.")


def moody(
    key: str, then: Callable[[list[dict[str, str]]], str] = answer
) -> Callable[[list[dict[str, str]]], str | Fault]:
    """Fails at the first two requests: an optimizer passes over them, and its library logs what was said."""
    left = [Fault(500, refusal(key).message) for _ in range(2)]
    return lambda messages: left.pop() if left else then(messages)


def model(server: FakeOpenAI, variable: str) -> dict[str, object]:
    return {"model": "openai/fake", "api_base": server.base_url, "api_key_env": variable}


def lm(server: FakeOpenAI, variable: str) -> dict[str, object]:
    return {**model(server, variable), "num_retries": 0}


def spec(
    task: dict[str, object], *, others: dict[str, object] | None = None, **more: object
) -> dict[str, object]:
    """A compile by this task's model; `others` play the other roles, `more` are other parts of the spec."""
    return {
        "program": {
            "name": "canary",
            "signature": {"inputs": [{"name": "message"}], "outputs": [{"name": "product"}]},
        },
        "lms": {"task": task, **(others or {})},
        "data": {"rows": ROWS},
        **more,
    }


def text_of(path: Path) -> str:
    """All of a file's content that could hold a key, unpacked; what other tests left damaged is searched as it is."""
    content = path.read_bytes()
    with suppress(pa.ArrowException, OSError, EOFError, zlib.error):
        if path.suffix == ".parquet":
            return pd.read_parquet(path).to_csv()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    return content.decode(errors="replace")


def found_in(folder: Path, keys: list[str]) -> list[str]:
    """Files below a folder that hold a key in any form."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(form in text_of(path) for key in keys for form in forms(key))
    ]


def lm_test(program: Program, address: str, variable: str, key: str) -> str:
    """What `dspyui lm test` prints, on both streams."""
    command = ["lm", "test", "openai/fake", "--api-base", address, "--api-key-env", variable, "--json"]
    ran = subprocess.run(
        [sys.executable, "-m", "dspyui", *command],
        env={"PATH": os.environ["PATH"], "DSPYUI_HOME": str(program.folder / "data"), variable: key},
        cwd=program.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert '"engine.auth"' in ran.stdout
    return ran.stdout + ran.stderr


def type_key(open_page, program: Program, key: str) -> None:
    """As a person does it, on the Settings page."""
    page = open_page(str(program.client.base_url).rstrip("/"), "/settings?lang=en").page
    page.get_by_test_id("key-provider").click()
    page.get_by_role("option", name="Another variable").click()
    page.get_by_test_id("key-variable").fill(TYPED_IN)
    page.get_by_test_id("key-value").fill(key)
    page.get_by_test_id("key-set").click()
    page.get_by_test_id(f"key-{TYPED_IN}").wait_for()
    assert key not in page.content()
    leave(page)


def press_test(open_page, program: Program, address: str, variable: str) -> str:
    """The compile page after its model was tested with a key that the server refuses."""
    page = open_page(str(program.client.base_url).rstrip("/"), "/?lang=en").page
    page.get_by_test_id("lm-model").fill("openai/fake")
    page.get_by_test_id("lm-base").fill(address)
    page.get_by_test_id("lm-key-variable").fill(variable)
    page.get_by_test_id("lm-test").click()
    said = page.get_by_test_id("lm-test-problem")
    said.wait_for()
    assert "Incorrect API key provided: ***" in said.inner_text()
    shown = page.content()
    leave(page)
    return shown


def leave(page: Page) -> None:
    """The page lets go of a server that is about to end."""
    page.goto("about:blank")


def recorded(program: Program, document: dict[str, object], status: str) -> str:
    """A compile that has ended so, and whose record is in MLflow."""
    job_id = program.compile(document)
    found = program.wait(job_id, "done", "failed", seconds=180)
    assert found["job"]["status"] == status, found
    wait_until(lambda: program.job(job_id)["summary"]["record"] == "sent", seconds=60)
    return job_id


def with_mlflow(address: str, **more: str) -> dict[str, str]:
    """The program's environment."""
    settings = {"MLFLOW_LOG_TRACES_FROM_COMPILE": "true", "DSPYUI_LOCAL_LM": "false"}
    return {"MLFLOW_TRACKING_URI": address, **settings, **more}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("variable", [IN_ENVIRONMENT, TYPED_IN])
def test_a_key_is_found_nowhere(open_page, mlflow_address, tmp_path, tmp_path_factory, variable):
    key = canary()
    given = {IN_ENVIRONMENT: key} if variable == IN_ENVIRONMENT else {}
    with (
        FakeOpenAI(answer) as good,
        FakeOpenAI(lambda _m: refusal(key)) as bad,
        FakeOpenAI(moody(key)) as teacher,
        Program(tmp_path, **with_mlflow(mlflow_address, **given)) as program,
    ):
        task = lm(good, variable)
        if variable == TYPED_IN:
            refused = program.client.post("/api/compile", json=spec(task))
            assert refused.json()["code"] == "lm.key_unset"
            type_key(open_page, program, key)
        done = recorded(program, spec(task), "done")
        moody_teacher = recorded(program, spec(task, others={"teacher": lm(teacher, variable)}), "done")
        failed = recorded(program, spec(lm(bad, variable)), "failed")
        name = f"canary-{secrets.token_hex(4)}"
        said = [
            program.client.get(f"/api/jobs/{failed}").text,
            *_use(program, done, name, bad, variable),
        ]
        said.append(lm_test(program, bad.base_url, variable, key))
        said.append(press_test(open_page, program, bad.base_url, variable))
        said += _pages(open_page, program, (done, moody_teacher, failed), f"/models/{name}/1")
    assert f"Bearer {key}" in good.keys
    assert f"Bearer {key}" in bad.keys
    log = (tmp_path / "data" / "jobs" / moody_teacher / "log.txt").read_text()
    assert "Incorrect API key provided: ***" in log
    assert not [text for text in said if any(form in text for form in forms(key))]
    assert found_in(tmp_path_factory.getbasetemp(), [key]) == []


@pytest.mark.timeout(600)
def test_no_roles_key_is_found_anywhere(open_page, mlflow_address, tmp_path, tmp_path_factory):
    keys = {role: canary() for role in BY_ROLE}
    given = {BY_ROLE[role]: key for role, key in keys.items()}
    with (
        FakeOpenAI(answer) as good,
        Program(tmp_path, **with_mlflow(mlflow_address, **given)) as program,
    ):
        jobs = _other_roles(program, lm(good, BY_ROLE["task"]), keys)
        said = [program.client.get(f"/api/jobs/{job_id}").text for job_id in jobs]
        said += _shown(open_page, program, [f"/jobs/{job_id}" for job_id in jobs])
    for job_id in jobs:
        kept = [path for path in (tmp_path / "data" / "jobs" / job_id).rglob("*") if path.is_file()]
        assert any("Incorrect API key provided: ***" in text_of(path) for path in kept)
    assert not [text for text in said if any(form in text for key in keys.values() for form in forms(key))]
    assert found_in(tmp_path_factory.getbasetemp(), list(keys.values())) == []


def _other_roles(program: Program, task: dict[str, object], keys: dict[str, str]) -> tuple[str, str]:
    """Two compiles: one whose judge and prompt writer fail twice, each with its key; one whose embedder refuses."""
    with (
        FakeOpenAI(moody(keys["judge"], lambda _m: "Could be better.\nSCORE: 5")) as judge,
        FakeOpenAI(moody(keys["prompt"], lambda _m: "```\nName the thing.\n```")) as writer,
        FakeOpenAI(lambda _m: chat(product="something else")) as embedder,
    ):
        embedder.embed_fault = Fault(401, refusal(keys["embedder"]).message)
        judged = spec(
            task,
            others={"judge": lm(judge, BY_ROLE["judge"]), "prompt": lm(writer, BY_ROLE["prompt"])},
            metric={"kind": "llm_judge"},
            optimizer={"kind": "gepa", "params": {"max_metric_calls": 20}},
        )
        variable = BY_ROLE["embedder"]
        similar = spec(
            lm(embedder, variable),
            others={"embedder": model(embedder, variable)},
            metric={"kind": "similarity"},
        )
        found = recorded(program, judged, "done"), recorded(program, similar, "failed")
    for role, server in (("judge", judge), ("prompt", writer), ("embedder", embedder)):
        assert set(server.keys) == {f"Bearer {keys[role]}"}, role
    return found


def _use(program: Program, job_id: str, name: str, bad: FakeOpenAI, variable: str) -> list[str]:
    """Register the job's program, run it, and ask a server that refuses."""
    registered = program.client.post(
        "/api/register", json={"job_id": job_id, "name": name, "stage": "Staging", "why": "w"}, timeout=90
    )
    assert registered.status_code == 200, registered.text
    predicted = program.client.post(
        "/api/predict", json={"job_id": job_id, "inputs": {"message": "My lamp broke."}}, timeout=90
    )
    assert predicted.status_code == 200, predicted.text
    tested = program.client.post(
        "/api/lms/test",
        json={"model": "openai/fake", "api_base": bad.base_url, "api_key_env": variable},
        timeout=90,
    )
    assert tested.json()["code"] == "engine.auth"
    assert "***" in tested.text
    return [registered.text, predicted.text, tested.text, program.client.get("/api/lms").text]


def _pages(open_page, program: Program, jobs: tuple[str, ...], model: str) -> list[str]:
    """The pages as they stand in a browser once everything is there."""
    paths = [f"/jobs/{jobs[0]}", f"/?job={jobs[0]}", "/jobs", "/runs", "/models", model, "/settings"]
    return _shown(open_page, program, [*paths, *(f"/jobs/{job_id}" for job_id in jobs[1:])])


def _shown(open_page, program: Program, paths: list[str]) -> list[str]:
    address = str(program.client.base_url).rstrip("/")
    shown = []
    for path in paths:
        page = open_page(address, path).page
        page.wait_for_load_state("networkidle")
        shown.append(page.content())
        leave(page)
    return shown


def test_a_typed_key_is_gone_after_a_restart_and_the_job_says_so(open_page, tmp_path):
    key = canary()
    settings = {"MLFLOW_ENABLED": "false", "DSPYUI_LOCAL_LM": "false"}
    with FakeOpenAI(answer, seconds=1) as slow:
        program = Program(tmp_path, **settings)
        type_key(open_page, program, key)
        job_id = program.compile(spec(lm(slow, TYPED_IN)))
        wait_until(lambda: slow.requests, seconds=60)
        program.kill()
        with Program(tmp_path, **settings) as again:
            found = again.wait(job_id, "failed", seconds=120)
            assert found["error"]["code"] == "lm.key_unset"
            assert TYPED_IN in found["error"]["message"]
            providers = again.get("/api/lms")["providers"]
            assert "typed" not in {provider["key"] for provider in providers}
    assert found_in(tmp_path, [key]) == []


def test_the_search_finds_a_key_where_there_is_one(tmp_path):
    key = canary()
    plain, quoted, basic, _ = forms(key)
    (tmp_path / "plain.bin").write_bytes(b"\xff\x00" + plain.encode() + b"\x00")
    (tmp_path / "quoted.log").write_text(f"GET /?key={quoted}")
    (tmp_path / "packed").write_bytes(gzip.compress(basic.encode()))
    pd.DataFrame({"reply": [plain]}).to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "innocent").write_text(canary())
    assert sorted(found_in(tmp_path, [key])) == ["packed", "plain.bin", "quoted.log", "rows.parquet"]
