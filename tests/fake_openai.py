"""A fake server of language models on loopback, as quick as wanted, and as faulty.

It speaks OpenAI's protocol, and the two others that DSPy has clients of its own for: Anthropic's and Gemini's.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Fault:
    """An HTTP error instead of a reply; with `body`, that text as it is instead of the usual document."""

    status: int
    message: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None


Reply = Callable[[list[dict[str, str]]], "str | Fault"]


def chat(**fields: object) -> str:
    """A reply as DSPy's ChatAdapter reads it."""
    return "\n\n".join(f"[[ ## {k} ## ]]\n{v}" for k, v in fields.items()) + "\n\n[[ ## completed ## ]]"


def last_input(messages: list[dict[str, str]], name: str) -> str:
    """The value of an input field in the last user message."""
    text = messages[-1]["content"].split(f"[[ ## {name} ## ]]", 1)[1]
    return text.split("[[ ##", 1)[0].split("\n\nRespond with", 1)[0].strip()


class FakeOpenAI:
    """Answers `/v1/chat/completions` with what `reply(messages)` gives, after `seconds`; keeps every request.

    So it does for Anthropic's `/messages` and Gemini's `…:generateContent`, whose requests `reply` sees as OpenAI
    would write them. `requests` holds the bodies as they were sent, `headers` and `paths` what came with each, `spent`
    the tokens (sent, got) that each answer spoke of.

    `/v1/embeddings` counts the words of a text, so that texts are near one another when they share words;
    `embed_fault` is answered instead when it is set, `embed_answer` may change the list of vectors. Its requests are in
    `embedded`.

    A test that needs a compile to be in the middle of its work says `hold(after=N)`: the requests after the Nth get
    no answer until `release()`, however quick or slow the machine is.
    """

    def __init__(self, reply: Reply, seconds: float = 0.0) -> None:
        self.reply = reply
        self.seconds = seconds
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.headers: list[Message] = []
        self.paths: list[str] = []
        self.spent: list[tuple[int, int]] = []
        self.embedded: list[dict[str, Any]] = []
        self.embed_fault: Fault | None = None
        self.embed_answer: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = None
        self._held_after: int | None = None
        self._released = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.keys.append(self.headers.get("Authorization", ""))
                if self.path.endswith("/embeddings"):
                    self._embed(body)
                    return
                fake.requests.append(body)
                fake.headers.append(self.headers)
                fake.paths.append(self.path)
                fake.wait_while_held()
                time.sleep(fake.seconds)
                said = fake.reply(conversation(body))
                if isinstance(said, Fault):
                    usual = json.dumps({"error": {"message": said.message}})
                    self._send(said.status, usual if said.body is None else said.body, said.headers)
                else:
                    self._send(200, json.dumps(fake.document(self.path, body, said)), {})

            def _embed(self, body: dict[str, Any]) -> None:
                fake.embedded.append(body)
                if fault := fake.embed_fault:
                    usual = json.dumps({"error": {"message": fault.message}})
                    self._send(fault.status, usual if fault.body is None else fault.body, fault.headers)
                    return
                texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
                data = [
                    {"object": "embedding", "index": n, "embedding": word_counts(text)}
                    for n, text in enumerate(texts)
                ]
                if change := fake.embed_answer:
                    data = change(data)
                usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
                document = {"object": "list", "data": data, "model": body["model"], "usage": usage}
                self._send(200, json.dumps(document), {})

            def _send(self, status: int, text: str, headers: dict[str, str]) -> None:
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                try:
                    self.end_headers()
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the asker was killed; that is the test

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        # It looks so often, in seconds, whether it is to end: half a second, as usual, would be most of many a test.
        serve = partial(self._server.serve_forever, poll_interval=0.02)
        self._thread = threading.Thread(target=serve, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def hold(self, *, after: int) -> None:
        """Keep the requests after so many waiting."""
        self._held_after = after
        self._released.clear()

    def release(self) -> None:
        """Answer those that wait, and all that come."""
        self._held_after = None
        self._released.set()

    def wait_while_held(self) -> None:
        """Until released, when enough requests have come."""
        if self._held_after is not None and len(self.requests) > self._held_after:
            self._released.wait(240)

    def prompts(self) -> list[str]:
        """All text of each request, in order."""
        return ["\n".join(m["content"] for m in conversation(request)) for request in list(self.requests)]

    def document(self, path: str, body: dict[str, Any], text: str) -> dict[str, Any]:
        """The reply to a request at the path, as the protocol writes it."""
        sent, got = sum(len(m["content"].split()) for m in conversation(body)), len(text.split())
        self.spent.append((sent, got))
        if path.endswith("/messages"):
            return _anthropic(body, text, sent, got)
        return (
            _gemini(text, sent, got) if path.endswith(":generateContent") else _openai(body, text, sent, got)
        )

    def __enter__(self) -> "FakeOpenAI":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=60)


def word_counts(text: str, size: int = 64) -> list[float]:
    """A vector with the number of words of a text in each of `size` bins; a word is always in the same bin."""
    vector = [0.0] * size
    for word in text.casefold().split():
        vector[int(hashlib.sha256(word.encode()).hexdigest(), 16) % size] += 1.0
    return vector


def conversation(body: dict[str, Any]) -> list[dict[str, str]]:
    """The messages of a request in any of the three protocols, as OpenAI writes them."""
    if "contents" in body:
        roles = {"model": "assistant", "user": "user"}
        system = _text(body.get("systemInstruction", {}).get("parts", []))
        turns = [{"role": roles[turn["role"]], "content": _text(turn["parts"])} for turn in body["contents"]]
    else:
        system = _text(body.get("system", []))
        turns = [message | {"content": _text(message["content"])} for message in body["messages"]]
    return [{"role": "system", "content": system}, *turns] if system else turns


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _openai(body: dict[str, Any], text: str, sent: int, got: int) -> dict[str, Any]:
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": sent, "completion_tokens": got, "total_tokens": sent + got},
    }


def _anthropic(body: dict[str, Any], text: str, sent: int, got: int) -> dict[str, Any]:
    return {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": sent, "output_tokens": got},
    }


def _gemini(text: str, sent: int, got: int) -> dict[str, Any]:
    said = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
    counts = {"promptTokenCount": sent, "candidatesTokenCount": got, "totalTokenCount": sent + got}
    return {"candidates": [said], "usageMetadata": counts, "responseId": "fake"}
