"""The whole program, and a job folder that takes no more: the job says so, keeps what it had, and runs again."""

import resource

import pytest

from dspyui.adapters.files.jobs import FileJobStore
from dspyui.services.documents import spec_of
from tests.fake_openai import FakeOpenAI
from tests.program import Program
from tests.slow.test_server_faults import ROWS, knowing, spec

pytestmark = pytest.mark.slow


@pytest.fixture
def lm():
    with FakeOpenAI(knowing) as fake:
        yield fake


def test_a_job_that_finds_no_room_says_so_and_can_be_run_again(tmp_path, lm):
    store = FileJobStore(tmp_path / "data")
    rows = [{**row, "message": f"{row['message']} {'x' * 400_000}"} for row in ROWS]
    job = store.create(spec_of({**spec(lm), "data": {"rows": rows}}), rows, title="full", who="w")
    with Program(tmp_path, MLFLOW_ENABLED="false") as program:
        # The system gives the program and its children no file over 6 MB, and half of the rows are more.
        resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, (6_000_000, 6_000_000))
        # The program has not heard of the job, and takes it up as one whose maker died.
        failed = program.wait(job.id, "failed", seconds=90)
        assert failed["error"]["code"] == "storage.full"
        assert job.id in failed["error"]["message"]
        assert "File too large" in failed["error"]["message"]
        page = program.client.get(f"/jobs/{job.id}", params={"lang": "zh"})
        assert "请腾出空间" in page.text
        assert len(store.rows(job.id)) == len(rows)
        assert {event.kind for event in store.events(job.id)[0]} >= {"job.started", "job.failed"}
        again = program.compile(spec(lm))
        assert program.wait(again, "done")["summary"]["evaluation_score"] == 1.0
