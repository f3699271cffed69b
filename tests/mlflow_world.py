"""What tests of the MLflow adapter and of its contracts are made of: programs, Runs, traces, a proxy."""

import http.client
import ipaddress
import json
import secrets
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dspyui.domain.compiles import Usage
from dspyui.domain.jobs import new_job_id
from dspyui.domain.lms import LMSpec
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import CompiledProgram, ProgramSpec
from dspyui.domain.runs import ArtifactFile, RunRecord
from dspyui.domain.signatures import SignatureSpec
from dspyui.domain.traces import Span, Trace

STARTED = datetime(2026, 11, 23, 12, 0, 0, 250000, tzinfo=UTC)
# A test row of `compiled()`.
ROW = {"message": "你好 lamp", "count": 2, "tags": ["x", "y"], "product": "lamp"}


def compiled(lm=None, module="predict", **signature):
    """A small compiled program with two demos and every type of field."""
    spec = SignatureSpec.model_validate(
        {
            "instructions": "Extract the 产品.",
            "inputs": [
                {"name": "message", "description": "from a customer"},
                {"name": "count", "type": "int"},
                {"name": "tags", "type": "list[str]"},
            ],
            "outputs": [
                {"name": "product"},
                {"name": "price", "type": "float"},
                {"name": "urgent", "type": "bool"},
                {"name": "kind", "type": "choice", "choices": ["问题", "praise"]},
            ],
            **signature,
        }
    )
    demo = {"message": "My lamp broke", "count": 1, "tags": ["a"]}
    demo |= {"product": "lamp", "price": 3.5, "urgent": True, "kind": "问题"}
    fields = [{"prefix": f"{field.name.capitalize()}:", "description": "d"} for field in spec.fields]
    state = {
        "traces": [],
        "train": [],
        "demos": [demo],
        "signature": {"instructions": spec.instructions, "fields": fields},
        "lm": None,
    }
    return CompiledProgram(
        spec=ProgramSpec.model_validate(
            {"name": "产品 extraction", "signature": spec, "module": {"kind": module}}
        ),
        lm=lm or LMSpec(model="openai/fake", api_base="http://127.0.0.1:9/v1", max_tokens=40, temperature=0),
        optimizer=OptimizerSpec(kind="labeled_few_shot"),
        state=state,
        signature_digest=spec.digest(),
    )


class RunMaker:
    """Makes finished Runs with a program and test rows."""

    def __init__(self, store, folder):
        self.store = store
        self.folder = folder

    def record(self, program=None, row=ROW, **changes):
        job_id = new_job_id(datetime.now(UTC))
        folder = self.folder / job_id
        folder.mkdir()
        (folder / "program.json").write_text((program or compiled()).to_json(), encoding="utf-8")
        (folder / "test.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
        artifacts = (
            ArtifactFile(file=folder / "program.json", artifact_path="program/program.json"),
            ArtifactFile(file=folder / "test.jsonl", artifact_path="dataset/test.jsonl"),
        )
        fields = {
            "name": "产品-LabeledFewShot",
            "status": "FINISHED",
            "started_at": STARTED,
            "ended_at": STARTED + timedelta(seconds=5),
            "metrics": {"baseline_score": 0.1, "evaluation_score": 0.9, "score_improvement": 0.8},
            "artifacts": artifacts,
        }
        return RunRecord(job_id=job_id, **{**fields, **changes})

    def __call__(self, program=None, **changes):
        return self.store.send(self.record(program, **changes)).run_id


def make_trace(*, error=None, tags=None, size=0):
    """A call of Predict with an LM call inside."""
    root, child = secrets.token_hex(8), secrets.token_hex(8)
    start = time.time_ns()
    return Trace(
        trace_id=secrets.token_hex(16),
        tags={"dspyui.row": "7", **(tags or {})},
        spans=(
            Span(
                span_id=root,
                parent_id=None,
                name="Predict",
                kind="CHAIN",
                start_ns=start,
                end_ns=start + 20_000_000,
                inputs={"message": "你好" + "x" * size, "count": 2**70, "tags": ["a", None], "half": 0.5},
                outputs=None if error else {"product": "lamp"},
                error=error,
            ),
            Span(
                span_id=child,
                parent_id=root,
                name="LM",
                kind="LLM",
                start_ns=start + 1_000_000,
                end_ns=start + 15_000_000,
                inputs={"messages": [{"role": "user", "content": "hi"}]},
                outputs=["lamp"],
                attributes={"model": "openai/fake", "temperature": 0.0},
                usage=Usage(lm_calls=1, input_tokens=10, output_tokens=3),
            ),
        ),
    )


class Authority:
    """A certificate authority of one's own and a server's certificate for 127.0.0.1, as PEM files in a folder."""

    def __init__(self, folder):
        self.certificate, self._server = folder / "authority.pem", folder / "server.pem"
        key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        own = self._signed(name, name, key.public_key(), key, [(x509.BasicConstraints(True, 0), True)])
        host = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        made = self._signed(host, name, server_key.public_key(), key, [(names, False)])
        self.certificate.write_bytes(own.public_bytes(serialization.Encoding.PEM))
        private = server_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self._server.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))

    @staticmethod
    def _signed(subject, issuer, public, by, extensions):
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            issuer,
            subject,
            public,
            x509.random_serial_number(),
            now - timedelta(days=1),
            now + timedelta(days=2),
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(by, hashes.SHA256())

    def context(self):
        """What a server speaks https with."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self._server)
        return made


class Proxy:
    """A server between the client and MLflow. `rule(method, path)` may return what goes wrong with a request:

    a status or a document to answer with instead, "drop" to pass it on and lose the answer, "hang" to take it and be
    silent.
    Without the `Authorization` that it `wants` it lets nobody in; with a TLS `context` it speaks https.
    """

    def __init__(self, address, rule=lambda method, path: None, *, wants=None, context=None):
        self.rule = rule
        self.paths = []
        self._scheme = "https" if context else "http"
        self.headers = {}
        self._released = threading.Event()
        target = urlsplit(address)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.headers = dict(self.headers)
                if wants is not None and self.headers.get("Authorization") != wants:
                    self._answer(401, {"Content-Type": "text/plain"}, b"Who are you?")
                    return
                proxy.paths.append(urlsplit(self.path).path)
                fault = proxy.rule(self.command, self.path)
                if fault == "hang":
                    proxy._released.wait(60)
                    self.close_connection = True
                    return
                if isinstance(fault, int):
                    self._answer(fault, {"Content-Type": "text/plain"}, b"no")
                    return
                if isinstance(fault, bytes):
                    self._answer(200, {"Content-Type": "application/json"}, fault)
                    return
                status, headers, content = self._pass_on(body)
                if fault == "drop":
                    self.close_connection = True
                    return
                self._answer(status, headers, content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815 - http.server's names

            def _pass_on(self, body):
                connection = http.client.HTTPConnection(target.hostname, target.port, timeout=60)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in {"host", "connection"}}
                connection.request(
                    self.command, self.path, body=body, headers={**headers, "Connection": "close"}
                )
                reply = connection.getresponse()
                content = reply.read()
                connection.close()
                return reply.status, {"Content-Type": reply.headers.get("Content-Type", "")}, content

            def _answer(self, status, headers, content):
                self.send_response(status)
                if context is not None:
                    # Else MLflow's sessions, which are kept for ever, leave connections that nobody closes.
                    headers = {**headers, "Connection": "close"}
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            # The handshake is the handler's, in its thread: one that breaks off must not stop the server.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
            self._server.handle_error = lambda *_: None
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self):
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
