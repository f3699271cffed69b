"""The program as a person starts it: `dspyui ui` as a real process, spoken to over its API."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from tests.conftest import free_port
from tests.waiting import wait_until


class Program:
    """A running `dspyui ui` on a data folder; starting it again on the same folder is a restart."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.port = free_port()
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "DSPYUI_HOME": str(folder / "data"),
            "DSPYUI_LANGUAGE": "en_US",
            **settings,
        }
        self._log = (folder / "program.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dspyui", "ui", "--port", str(self.port)],
            env=self._environment, cwd=folder, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=30)
        try:
            wait_until(self._answers, seconds=60)
        except AssertionError:
            self.stop()
            raise

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "program.log").read_text()
        try:
            return self.client.get("/api/health").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str) -> Any:
        """The document at a path of the API."""
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def compile(self, document: dict[str, Any]) -> str:
        """Queue a compile; gives the job's id."""
        answer = self.client.post("/api/compile", json=document)
        assert answer.status_code == 202, answer.text
        return answer.json()["job_id"]

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as the API tells it."""
        return self.get(f"/api/jobs/{job_id}")

    def wait(self, job_id: str, *statuses: str, seconds: float = 120) -> dict[str, Any]:
        """The job once it has one of the statuses."""
        wait_until(lambda: self.job(job_id)["job"]["status"] in statuses, seconds=seconds)
        return self.job(job_id)

    def children(self) -> list[psutil.Process]:
        """Every process below the program's own."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait(60)
        self.stop()

    def stop(self) -> int:
        """End it as `docker stop` would; gives the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self._log.close()
        self.client.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
