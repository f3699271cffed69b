"""One batch over several machines: real processes with data folders of their own, and a real PostgreSQL."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.batch_world import asked, program, second_word, write_rows
from tests.fake_openai import FakeOpenAI
from tests.postgres_world import running_postgres
from tests.program import Program
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

NEW = ("--model", "things.json", "--input", "rows.jsonl", "--output", "out.jsonl")


@pytest.fixture
def server():
    with FakeOpenAI(second_word) as fake:
        fake.seconds = 0.1
        yield fake


@pytest.fixture
def postgres(tmp_path):
    with running_postgres(tmp_path / "pg") as server:
        yield server


class Team:
    """Machines: each a data folder of its own, all with the address of one database."""

    def __init__(self, folder: Path, address: str, model: str) -> None:
        self.folder = folder
        self.address = address
        self.model = model
        self._started: list[subprocess.Popen[str]] = []

    def environment(self, machine, **settings):
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "DSPYUI_HOME": str(self.folder / machine),
            "DSPYUI_DATABASE_URL": self.address,
            "DSPYUI_LANGUAGE": "en_US",
            "MLFLOW_ENABLED": "false",
            **settings,
        }

    def start(self, machine, *arguments, **settings):
        with (self.folder / f"{machine}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dspyui", *arguments, "--json"],
                env=self.environment(machine, **settings), cwd=self.folder,
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self._started.append(process)
        return process

    def worker(self, machine, *arguments, **settings):
        # The fake model's address is the same server on all of these machines.
        settings = {"DSPYUI_KEY_ADDRESSES": self.model, **settings}
        process = self.start(machine, "worker", *arguments, **settings)
        wait_until(lambda: "Waiting for batches" in self.said(machine), seconds=60)
        return process

    def batch(self, *arguments, **settings):
        return self.start("host", "batch", *NEW, *arguments, **settings)

    def said(self, machine):
        return (self.folder / f"{machine}.log").read_text()

    def job(self):
        (folder,) = (self.folder / "host" / "jobs").iterdir()
        return folder

    def output(self):
        return [json.loads(line) for line in (self.folder / "out.jsonl").read_text().splitlines()]

    def finished(self):
        """The rows that are safe on the host's disk."""
        lines = [
            *(self.job() / "results.jsonl").read_text().splitlines(keepends=True),
            *(self.job() / "results.journal").read_text().splitlines(keepends=True),
        ]
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        return {row["id"] if "id" in row else row["index"] for row in whole}

    def close(self):
        for process in self._started:
            with suppress(psutil.Error):
                for one in (*psutil.Process(process.pid).children(recursive=True), process):
                    one.kill()
            process.communicate(timeout=30)


@pytest.fixture
def team(tmp_path, server, postgres):
    (tmp_path / "things.json").write_text(program(server.base_url).to_json())
    made = Team(tmp_path, postgres.new_database(), server.base_url)
    yield made
    made.close()


def ended(process, seconds=180):
    out, _ = process.communicate(timeout=seconds)
    return process.returncode, json.loads(out.splitlines()[-1])


def stopped(process):
    process.terminate()
    return ended(process, 60)


def answered(postgres):
    """The rows whose answers are in the database."""
    return {index for (index,) in postgres.run("test_0", "select index from dspyui.answers")}


def test_two_workers_help_and_one_is_killed_for_good(team, server, postgres, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 600)
    dies, lives = team.worker("dies"), team.worker("lives")
    batch = team.batch("--concurrency", "24")
    wait_until(lambda: len(server.requests) > 250, seconds=120)
    dies.kill()
    dies.communicate()
    safe = answered(postgres) | team.finished()
    assert len(safe) > 100
    code, answer = ended(batch)
    assert (code, answer["success_count"], answer["error_count"]) == (0, 600, 0), answer
    assert [row["product"] for row in team.output()] == [f"thing{n}" for n in range(600)]
    times = Counter(asked(server))
    assert {times[n] for n in safe} == {1}
    # Nobody can know whether those that it was just asking were answered; it had a third of the calls.
    assert max(times.values()) <= 2
    assert sum(times.values()) - 600 <= 8
    code, told = stopped(lives)
    assert code == 0
    assert 100 < told["rows"] < 600
    # Nothing is left, and nothing ever lay on the disk of those that helped.
    assert postgres.run("test_0", "select count(*) from dspyui.batches") == [(0,)]
    assert not (tmp_path / "lives" / "jobs").exists()


def test_the_host_is_killed_and_its_next_start_goes_on(team, server, postgres, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 400)
    worker = team.worker("helper")
    batch = team.batch("--concurrency", "16")
    wait_until(lambda: len(server.requests) > 150, seconds=120)
    batch.kill()
    batch.communicate()
    # Whoever helps stops by itself: a batch that may have been cancelled costs nothing more.
    before = -1
    while before != len(server.requests):
        before = len(server.requests)
        time.sleep(1.5)
    assert before < 300
    safe = answered(postgres) | team.finished()
    settings = {"MLFLOW_ENABLED": "false", "DSPYUI_DATABASE_URL": team.address}
    with Program(tmp_path, **settings, DSPYUI_HOME=str(tmp_path / "host")):
        wait_until(lambda: json.loads((team.job() / "job.json").read_text())["status"] == "done", seconds=120)
    assert [row["product"] for row in team.output()] == [f"thing{n}" for n in range(400)]
    times = Counter(asked(server))
    assert {times[n] for n in safe} == {1}
    assert sum(times.values()) - 400 <= 16
    assert stopped(worker)[1]["rows"] > 0


def test_one_rate_limit_for_all_machines(team, server, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 30)
    came = []

    def reply(messages):
        came.append(time.monotonic())
        return second_word(messages)

    server.reply = reply
    workers = [team.worker("one"), team.worker("two")]
    code, answer = ended(team.batch("--concurrency", "12", "--rate-limit", "120"))
    assert (code, answer["success_count"]) == (0, 30), answer
    came.sort()
    # Two a second, whoever makes them, after a first burst of one second's worth.
    assert came[-1] - came[0] >= 13.0
    assert sum(stopped(worker)[1]["rows"] for worker in workers) > 0


def test_every_row_has_its_trace_whoever_has_asked_it(team, tmp_path, mlflow_address):
    from mlflow import MlflowClient

    write_rows(tmp_path / "rows.jsonl", 120)
    settings = {
        "MLFLOW_ENABLED": "true", "MLFLOW_TRACKING_URI": mlflow_address, "MLFLOW_EXPERIMENT_NAME": "shared-batch",
    }  # fmt: skip
    worker = team.worker("helper")
    code, answer = ended(team.batch("--concurrency", "16", **settings))
    assert (code, answer["record"], answer["traces_logged"], answer["traces_lost"]) == (0, "sent", 120, 0), (
        answer
    )
    client = MlflowClient(tracking_uri=mlflow_address)
    experiment = client.get_experiment_by_name("shared-batch").experiment_id
    (run,) = client.search_runs([experiment])
    found = client.search_traces(
        locations=[experiment], run_id=run.info.run_id, max_results=500, include_spans=False
    )
    assert {trace.info.trace_id for trace in found} == {row["_trace_id"] for row in team.output()}
    assert len(found) == 120
    assert run.data.metrics["total_tokens"] == answer["tokens"] > 0
    assert stopped(worker)[1]["rows"] > 0
    assert not list((tmp_path / "helper").rglob("*.otlp*"))


def test_the_database_goes_away_in_the_middle_and_comes_back(team, server, postgres, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 400)
    worker = team.worker("helper")
    batch = team.batch("--concurrency", "16")
    wait_until(lambda: len(server.requests) > 100, seconds=120)
    with postgres.stopped():
        wait_until(lambda: "does not answer" in team.said("helper"), seconds=60)
        wait_until(lambda: "batch.database_away" in (team.job() / "events.jsonl").read_text(), seconds=60)
    code, answer = ended(batch)
    assert (code, answer["success_count"], answer["error_count"]) == (0, 400, 0), answer
    assert [row["product"] for row in team.output()] == [f"thing{n}" for n in range(400)]
    # An answer that had come was not thrown away.
    assert sum(Counter(asked(server)).values()) - 400 <= 16
    assert "batch.database_back" in (team.job() / "events.jsonl").read_text()
    assert "answers again" in team.said("helper")
    stopped(worker)


def test_a_machine_without_the_key_leaves_the_batch_to_the_others(team, server, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 60)
    made = program(server.base_url, api_key_env="TEAM_KEY")
    (tmp_path / "things.json").write_text(made.to_json())
    key = {"TEAM_KEY": "a-key-of-the-team"}
    none, elsewhere = team.worker("none"), team.worker("elsewhere", **key, DSPYUI_KEY_ADDRESSES="")
    allowed = team.worker("allowed", **key)
    code, answer = ended(team.batch("--concurrency", "12", **key))
    assert (code, answer["success_count"]) == (0, 60), answer
    assert "This machine cannot help with batch" in team.said("none")
    assert "TEAM_KEY" in team.said("none")
    # Whoever can write to the database must not be sent this machine's keys.
    assert server.base_url in team.said("elsewhere")
    assert [stopped(one)[1]["rows"] for one in (none, elsewhere)] == [0, 0]
    assert stopped(allowed)[1]["rows"] > 0
    assert key["TEAM_KEY"] not in "".join(
        team.said(name) for name in ("none", "elsewhere", "allowed", "host")
    )


def test_a_worker_without_a_database_is_told_what_to_set(team):
    code, answer = ended(team.start("w", "worker", DSPYUI_DATABASE_URL=""))
    assert (code, answer["error"]["code"]) == (2, "sharing.no_database")
    code, answer = ended(team.start("w", "worker", DSPYUI_DATABASE_URL="mysql://x"))
    assert (code, answer["error"]["code"]) == (2, "settings.database_url")
    code, answer = ended(
        team.start("w", "worker", DSPYUI_DATABASE_URL="postgresql://ann:canary-pass@127.0.0.1:9/x")
    )
    assert (code, answer["error"]["code"]) == (1, "sharing.database")
    assert "canary-pass" not in json.dumps(answer)
