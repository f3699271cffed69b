"""What several benchmarks need. As a command: a fake language model, whose address it prints, until stdin closes."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def second_word(messages: list[dict[str, str]]) -> str:
    """The product of a message such as "My lamp broke", as DSPy reads it."""
    word = messages[-1]["content"].split("[[ ## message ## ]]", 1)[1].split()[1]
    return f"[[ ## product ## ]]\n{word}\n\n[[ ## completed ## ]]"


class FakeLM:
    """A language model on loopback that gives the reply after so many seconds, and counts the calls."""

    def __init__(
        self, reply: Callable[[list[dict[str, str]]], str] = second_word, seconds: float = 0.0
    ) -> None:
        self.calls = 0
        self.seconds = seconds
        lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Else small answers wait for the other side's acknowledgement, 40 ms a call.
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    fake.calls += 1
                time.sleep(fake.seconds)
                message = {"role": "assistant", "content": reply(body["messages"])}
                usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
                said = {
                    "id": "fake", "object": "chat.completion", "created": 0, "model": body["model"],
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage,
                }  # fmt: skip
                data = json.dumps(said).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/v1"


class InstantLM:
    """A `FakeLM` that answers at once, in a process of its own, whose memory and time are not the caller's."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._process.stdout is None:
            raise RuntimeError("the fake model did not start")
        self.address = self._process.stdout.readline().strip()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)


if __name__ == "__main__":
    print(FakeLM().address, flush=True)
    sys.stdin.read()


def write(connection: Any, tables: Any, name: str, rows: Iterator[dict[str, Any]]) -> None:
    """Insert rows, 20,000 at a time; columns that a row does not name get nothing."""
    table = tables.tables[name]
    count = 0
    while batch := list(islice(rows, 20_000)):
        given = [{key: value for key, value in row.items() if key in table.c} for row in batch]
        connection.execute(table.insert(), given)
        count += len(batch)
    say(f"{name}: {count:,} rows")
