"""The door: Host, Origin, sockets, bodies, headers."""

import asyncio

import httpx
import pytest
from starlette.requests import ClientDisconnect

from dspyui.api.door import BodyLimit, HostGuard, HostRules, host_of, same_origin
from tests.api.conftest import BASE

MB = 1024**2


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7860", "localhost", "localhost:1", "[::1]:7860", "LOCALHOST", "127.9.9.9"]
)
def test_loopback_names_are_ours(client, host):
    assert client.get("/api/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.nip.io", "192.0.2.1", "192.0.2.1:7860",
     "localhost@evil.example", "evil.example/localhost", "localhost evil", "127.0.0.1:x", ""],
)  # fmt: skip
def test_other_names_are_refused(client, host):
    answer = client.get("/api/health", headers={"host": host, "accept-language": "en"})
    assert (answer.status_code, answer.json()["code"]) == (403, "door.host")


def test_a_page_is_refused_in_both_languages(client):
    chinese, english = client.get("/", headers={"host": "evil.example"}).text.splitlines()
    assert chinese.startswith("已拒绝")
    assert english.startswith("Refused")
    assert "evil.example" in chinese
    assert "evil.example" in english


def test_two_hosts_are_refused(client):
    headers = [("host", "127.0.0.1:7860"), ("host", "evil.example")]
    assert client.get("/api/health", headers=headers).status_code == 403


def test_further_names_can_be_allowed(make_client):
    client = make_client(allowed_hosts="dspy.example.org, [2001:db8::1]; box")
    for host in ("dspy.example.org", "DSPY.example.org.:80", "[2001:db8::1]:7860", "box"):
        assert client.get("/api/health", headers={"host": host}).status_code == 200
    assert client.get("/api/health", headers={"host": "example.org"}).status_code == 403


def test_on_every_address_an_address_will_do_but_no_foreign_name(settings):
    rules = HostRules(settings.model_copy(update={"host": "::"}))
    assert rules.allow("192.0.2.7")
    assert rules.allow("2001:db8::1")
    assert not rules.allow("evil.example")
    one = HostRules(settings.model_copy(update={"host": "192.0.2.7"}))
    assert one.allow("192.0.2.7")
    assert not one.allow("192.0.2.8")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:7861", "http://localhost:7860", "file://"]
)
def test_a_foreign_origin_is_refused(client, method, origin):
    answer = client.request(method, "/api/compile", headers={"origin": origin, "accept-language": "en"})
    assert (answer.status_code, answer.json()["code"]) == (403, "door.origin")


def test_its_own_origin_passes(client):
    assert client.get("/api/health", headers={"origin": BASE}).status_code == 200


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("https://a.example", "a.example", True),
        ("https://a.example", "a.example:443", True),
        ("http://a.example:80", "a.example", True),
        ("https://a.example", "a.example:80", False),
        ("http://[::1]:7860", "[::1]:7860", True),
        ("http://A.example", "a.EXAMPLE", True),
        ("http://a.example.evil", "a.example", False),
        ("http://user@a.example", "b.example", False),
        ("javascript:a.example", "a.example", False),
        ("", "a.example", False),
        ("http://a.example:99999", "a.example", False),
    ],
)
def test_same_origin(origin, host, same):
    known = host_of(host)
    assert known is not None
    assert same_origin(origin, known) is same


def knock(settings, headers):
    """Open a WebSocket at the guard; what it sends, and whether the application behind it was reached."""
    reached, sent = [], []

    async def app(scope, receive, send):
        reached.append(scope["path"])

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/_nicegui_ws/socket.io/",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(HostGuard(app, settings)(scope, receive, send))
    return sent, reached


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1:7860", "origin": "http://evil.example"},
        {"host": "evil.example", "origin": "http://evil.example"},
        {},
    ],
)
def test_a_foreign_socket_is_closed(settings, headers):
    sent, reached = knock(settings, headers)
    assert reached == []
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


def test_its_own_socket_passes(settings):
    sent, reached = knock(settings, {"host": "127.0.0.1:7860", "origin": BASE})
    assert (sent, reached) == ([], ["/_nicegui_ws/socket.io/"])


def test_a_body_that_says_it_is_too_large_is_not_read(make_client):
    client = make_client(max_upload_mb=1)
    answer = client.post("/api/compile", content=b"x" * (2 * MB + 1), headers={"accept-language": "en"})
    assert (answer.status_code, answer.json()["code"]) == (413, "door.too_large")
    assert "1 MB" in answer.json()["message"]
    assert answer.headers["connection"] == "close"


def test_a_body_without_a_length_is_stopped_at_the_limit(make_client):
    client, sent = make_client(max_upload_mb=1), []

    async def endless():
        for _ in range(1000):
            sent.append(1)
            yield b"x" * (MB // 4)

    answer = client.post("/api/compile", content=endless(), headers={"accept-language": "en"})
    assert (answer.status_code, answer.json()["code"]) == (413, "door.too_large")
    assert len(sent) < 20


def test_an_answer_that_had_begun_when_the_body_grew_too_large_is_broken_off(settings):
    """Its status is out already; an answer that ended well would look whole."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ClientDisconnect

    async def endless():
        while True:
            yield b"x" * MB

    async def send():
        transport = httpx.ASGITransport(BodyLimit(app, settings.model_copy(update={"max_upload_mb": 1})))
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            await client.post("/", content=endless())

    with pytest.raises(ClientDisconnect):
        asyncio.run(send())


def test_a_body_within_the_limit_passes(make_client):
    client = make_client(max_upload_mb=1)
    assert client.post("/api/compile", content=b"x" * MB).status_code == 400


@pytest.mark.parametrize("length", ["-1", "x", "1e9"])
def test_a_length_that_is_no_number_is_refused(settings, length):
    async def app(scope, receive, send):
        pytest.fail("reached")

    async def send():
        transport = httpx.ASGITransport(BodyLimit(app, settings))
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            return await client.post("/", headers={"content-length": length})

    assert asyncio.run(send()).status_code == 413


def test_every_answer_tells_the_browser_how_to_treat_it(client):
    headers = client.get("/api/health").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["referrer-policy"] == "same-origin"
    assert client.get("/", headers={"host": "evil.example"}).headers["x-frame-options"] == "SAMEORIGIN"
