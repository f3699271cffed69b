"""A fake MLflow server for the questions `/health` and `/version`; in this process, or as a process of its own.

`python tests/fake_mlflow.py PORT [SECONDS]` serves on loopback, after SECONDS. `GET /crash` ends it, `GET /hang` makes
it silent; it tells its process id at `/pid`.
"""

import os
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeMlflow:
    """Answers like MLflow, unless told otherwise. Use it as a context manager; `address` is where it is."""

    def __init__(
        self, port: int = 0, *, health: str = "OK", version: str = "3.17.2", status: int = 200
    ) -> None:
        self.health, self.version, self.status = health, version, status
        self.seconds = 0.0
        self.late: list[float] = []  # how long the next questions wait, before `seconds` counts again
        self.headers: list[dict[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def _handler(fake: "FakeMlflow"):  # noqa: N805 - `self` is the request below
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.headers.append(dict(self.headers))
                time.sleep(fake.late.pop() if fake.late else fake.seconds)
                fake.answer(self)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        return Handler

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.path == "/crash":
            os._exit(3)
        if request.path == "/hang":
            self.seconds = 3600.0
            time.sleep(self.seconds)
        texts = {"/health": self.health, "/version": self.version, "/pid": str(os.getpid())}
        body = texts.get(request.path, "").encode()
        request.send_response(self.status)
        request.send_header("Content-Length", str(len(body)))
        with suppress(ConnectionError):  # who asked may have lost patience
            request.end_headers()
            request.wfile.write(body)

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.02)

    def __enter__(self) -> "FakeMlflow":
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


if __name__ == "__main__":
    time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 0)
    FakeMlflow(int(sys.argv[1])).serve()
