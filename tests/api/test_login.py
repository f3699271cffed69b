"""Logging in: the page, the cookie, Basic for the API, and what happens to guesses."""

import asyncio
import base64
import stat
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from argon2 import PasswordHasher, extract_parameters
from pydantic import SecretStr

from dspyui.api.app import create_api
from dspyui.api.login import local_target, session_secret
from dspyui.api.passwords import PER_ADDRESS, PER_USER, Accounts, TooManyAttempts, hash_password
from dspyui.errors import BadRequestError
from tests.api.conftest import BASE, Client
from tests.api.world import World

PASSWORD = "correct horse 电池"
# As cheap as can be, so that the tests are quick; a real hash has its own test.
_CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
HASH = _CHEAP.hash(PASSWORD)
OTHER = _CHEAP.hash("other")
EN = {"accept-language": "en"}


@pytest.fixture
def guarded(make_client):
    return make_client(auth=SecretStr(f"ann:{HASH} 李雷:{OTHER}"))


def log_in(client, user="ann", password=PASSWORD, **arguments):
    return client.post("/login", data={"user": user, "password": password}, **arguments)


def basic(user, password):
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode(), **EN}


@pytest.mark.parametrize(
    "path", ["/", "/jobs/x?a=1&b=2", "/api/openapi.json", "/api/jobs", "/_nicegui/x.js", "/login/x"]
)
def test_everything_demands_a_login(guarded, path):
    answer = guarded.get(path, headers=EN)
    if path.startswith("/api"):
        assert (answer.status_code, answer.json()["code"]) == (401, "door.login_needed")
        assert answer.headers["www-authenticate"].startswith("Basic")
    else:
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?next=%2F")


def test_the_way_back_is_kept(guarded):
    assert guarded.get("/jobs/x?a=1&b=2").headers["location"] == "/login?next=%2Fjobs%2Fx%3Fa%3D1%26b%3D2"


def test_without_a_login_nothing_is_done(guarded):
    assert guarded.post("/anything").status_code == 401
    assert guarded.post("/api/compile", content=b"{}").status_code == 401
    assert guarded.request("HEAD", "/").status_code == 303


def test_health_is_open_but_tells_no_address(guarded):
    answer = guarded.get("/api/health")
    assert answer.status_code == 200
    assert answer.json()["tracking_address"] is None


def test_the_page_speaks_both_languages_and_loads_nothing(guarded):
    chinese, english = guarded.get("/login"), guarded.get("/login?lang=en_US")
    assert '<html lang="zh-CN">' in chinese.text
    assert "登录 DSPyUI" in chinese.text
    assert '<html lang="en-US">' in english.text
    assert "Log in to DSPyUI" in english.text
    assert "<script" not in english.text
    assert "http" not in english.text.replace("http-equiv", "")
    assert english.headers["content-security-policy"].startswith("default-src 'none'")


def test_the_right_password_opens(guarded):
    answer = log_in(guarded, params={"next": "/jobs/x?a=1"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs/x?a=1")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert PASSWORD not in cookie
    assert guarded.get("/api/jobs").status_code == 200
    assert guarded.get("/api/health").json()["tracking_address"] is not None


def test_who_is_logged_in_goes_into_records(settings):
    world = World(settings.model_copy(update={"auth": SecretStr(f"ann:{HASH};李雷:{OTHER}")}))
    client = Client(create_api(world.services, secret="s", local_user="local"))
    assert log_in(client, "李雷", "other").status_code == 303
    job_id = world.done()
    assert client.post("/api/register", json={"job_id": job_id, "name": "m"}).status_code == 200
    assert world.registry.who == ["李雷"]
    moved = client.post("/api/models/m/versions/1/stage", json={"stage": "Staging", "why": "w"})
    assert [change["who"] for change in moved.json()["history"]] == ["李雷"]


def test_logging_out_ends_it(guarded):
    log_in(guarded)
    assert guarded.post("/logout").headers["location"] == "/login"
    assert guarded.get("/api/jobs").status_code == 401


def test_wrong_passwords_and_unknown_users_look_alike(guarded):
    wrong = log_in(guarded, password="nope", headers=EN)
    unknown = log_in(guarded, user="nobody", headers=EN)
    assert wrong.status_code == unknown.status_code == 400
    assert wrong.text == unknown.text
    assert 'role="alert"' in wrong.text
    assert "set-cookie" not in wrong.headers


def test_guesses_run_out(make_client):
    client = make_client(auth=SecretStr(f"ann:{HASH}"))
    for _ in range(PER_ADDRESS.limit):
        assert log_in(client, password="nope").status_code == 400
    refused = log_in(client)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= PER_ADDRESS.seconds
    assert client.get("/api/jobs", headers=basic("ann", PASSWORD)).status_code == 429


def test_guesses_at_once_run_out_too(make_client):
    client = make_client(auth=SecretStr(f"ann:{HASH}"))
    with ThreadPoolExecutor(1) as pool:
        statuses = pool.submit(asyncio.run, many_guesses(client, 20)).result()
    assert sorted(statuses) == [401] * PER_ADDRESS.limit + [429] * (20 - PER_ADDRESS.limit)


async def many_guesses(client, count):
    async with httpx.AsyncClient(transport=client._transport, base_url=BASE) as session:
        asked = [session.get("/api/jobs", headers=basic("ann", f"guess {n}")) for n in range(count)]
        return [answer.status_code for answer in await asyncio.gather(*asked)]


def test_basic_opens_the_api(guarded):
    assert guarded.get("/api/jobs", headers=basic("ann", PASSWORD)).status_code == 200
    assert guarded.get("/api/jobs", headers=basic("李雷", "other")).status_code == 200
    wrong = guarded.get("/api/jobs", headers=basic("ann", "nope"))
    assert (wrong.status_code, wrong.json()["code"]) == (401, "door.wrong_password")


@pytest.mark.parametrize("header", ["Basic", "Basic !!", "Bearer x", "Basic /w=="])
def test_other_credentials_are_none(guarded, header):
    assert guarded.get("/api/jobs", headers={"authorization": header}).status_code == 401


def test_basic_does_not_open_pages(guarded):
    assert guarded.get("/", headers=basic("ann", PASSWORD)).status_code == 303


@pytest.mark.parametrize("token", ["x", "WyJhbm4iLCJ4Il0.aaaa.bbbb", ""])
def test_a_made_up_cookie_opens_nothing(guarded, token):
    log_in(guarded)
    name = next(iter(guarded.cookies))
    guarded.cookies.clear()
    guarded.cookies.set(name, token, domain="127.0.0.1")
    assert guarded.get("/api/jobs").status_code == 401


def test_a_new_password_ends_old_logins(settings):
    old = Client(create_api(world_of(settings, f"ann:{HASH}"), secret="s", local_user="local"))
    log_in(old)
    new = Client(create_api(world_of(settings, f"ann:{OTHER}"), secret="s", local_user="local"))
    same = Client(create_api(world_of(settings, f"ann:{HASH}"), secret="s", local_user="local"))
    new.cookies = same.cookies = old.cookies
    assert new.get("/api/jobs").status_code == 401
    assert same.get("/api/jobs").status_code == 200


def world_of(settings, auth):
    return World(settings.model_copy(update={"auth": SecretStr(auth)})).services


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "x",
        "",
        "/a\r\nb",
        "//[x",
    ],
)
def test_a_link_cannot_lead_elsewhere(target):
    assert local_target(target) == "/"


def test_a_form_with_too_many_fields_is_a_wrong_password(guarded):
    body = "&".join(f"field{number}=1" for number in range(20))
    form = {"content-type": "application/x-www-form-urlencoded", **EN}
    assert guarded.post("/login", content=body, headers=form).status_code == 400


def test_a_huge_login_form_is_not_kept(guarded):
    assert log_in(guarded, password="x" * 100_000, headers=EN).status_code == 400


@pytest.mark.parametrize(
    "entries",
    [
        "ann",
        "ann:",
        "ann:plain",
        ":x",
        f"a n:{HASH}",
        "ann:$argon2id$broken",
        ";;",
        f"ann:{HASH},bob:{OTHER}",
    ],
    ids=["no-colon", "no-hash", "plain", "no-name", "space-in-name", "broken-hash", "nothing", "comma"],
)
def test_entries_that_are_none_are_refused_without_showing_them(entries):
    with pytest.raises(BadRequestError) as caught:
        Accounts.parse(entries)
    assert caught.value.code == "door.auth_entry"
    assert "argon2id" not in str(caught.value)


@pytest.mark.parametrize("separator", [" ", ";", "\n", " ;\n "])
def test_entries_stand_apart(separator):
    accounts = Accounts.parse(f"ann:{HASH}{separator}bob:{OTHER}")
    accounts.check("a", "bob", "other")
    assert accounts.is_known("bob", "other")
    assert not accounts.is_known("bob", PASSWORD)


def test_a_real_hash_is_costly_and_fits():
    made = hash_password(PASSWORD)
    parameters = extract_parameters(made)
    assert (parameters.memory_cost, parameters.time_cost) >= (64 * 1024, 3)
    Accounts.parse(f"ann:{made}").check("a", "ann", PASSWORD)


def test_guesses_are_forgiven_after_a_while():
    now = [0.0]
    accounts = Accounts({"ann": HASH}, clock=lambda: now[0])
    for _ in range(PER_ADDRESS.limit):
        with pytest.raises(BadRequestError, match="do not match"):
            accounts.check("a", "ann", "nope")
    with pytest.raises(TooManyAttempts):
        accounts.check("a", "ann", PASSWORD)
    accounts.check("b", "ann", PASSWORD)
    now[0] = PER_ADDRESS.seconds + 1
    accounts.check("a", "ann", PASSWORD)


def test_guesses_from_many_addresses_run_out_for_one_user():
    accounts = Accounts({"ann": HASH}, clock=lambda: 0.0)
    for number in range(PER_USER.limit):
        with pytest.raises(BadRequestError, match="do not match"):
            accounts.check(f"a{number}", "ann", "nope")
    with pytest.raises(TooManyAttempts):
        accounts.check("fresh", "ann", PASSWORD)


def test_the_session_secret_is_made_once(tmp_path):
    home = tmp_path / "new" / "home"
    with ThreadPoolExecutor(4) as pool:
        secrets = set(pool.map(session_secret, [home] * 8))
    assert len(secrets) == 1
    assert len(secrets.pop()) >= 48
    assert stat.S_IMODE((home / "session_secret").stat().st_mode) == 0o600
    assert [file.name for file in home.iterdir()] == ["session_secret"]
