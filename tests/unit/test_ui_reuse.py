"""The way back into the form, and what is done to jobs from their page and their list."""

from datetime import timedelta
from urllib.parse import urlencode

import pytest
from nicegui.testing import User

from dspyui.domain.jobs import RecordState
from dspyui.domain.runs import RunInfo
from dspyui.domain.splits import split_rows
from dspyui.services.documents import dump_spec
from tests.api.world import DOCUMENT, MLFLOW, T0, World, program, spec
from tests.pages import element, sees, until, words

ROWS = DOCUMENT["data"]["rows"]


def finished_run(world: World, run_id: str = "r1", **tags: str) -> RunInfo:
    """A Run that another machine has made."""
    run = RunInfo(
        run_id=run_id, experiment_id="1", url=f"{MLFLOW}/#/r", name="抽取 🚀", status="FINISHED",
        job_id="20261123-224500-1a2b3c4d", started_at=T0, ended_at=T0, params={}, metrics={}, tags=tags,
    )  # fmt: skip
    world.runs.runs[run_id] = run
    return run


async def test_a_run_of_another_machine_is_loaded_with_its_rows(user: User, world: World):
    asked = spec(data={"path": "/elsewhere/rows.csv", "split": {"seed": 7}})
    finished_run(world)
    world.runs.specs["r1"] = dump_spec(asked)
    splits = split_rows(ROWS, ["message"], asked.data.split)
    world.runs.rows["r1"] = splits
    await user.open("/runs")
    await until(sees(user, marker="load-r1"))
    assert element(user, "run-r1").props["href"] == "/runs/r1"  # its job is not here
    await user.open(element(user, "load-r1").props["href"])
    await until(sees(user, marker="form-ready"))
    notice = words(user, "form-notice")
    assert "Filled in from Run r1." in notice
    assert "/elsewhere/rows.csv" in notice
    assert "the same splits" in notice
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    made = world.services.jobs.view(world.queue.submitted[0]).spec
    assert made.data.split == asked.data.split
    found = [(row["message"], row["_split"]) for row in made.data.rows or ()]
    assert found == [(row["message"], name) for name, part in splits.by_name().items() for row in part]


async def test_a_run_without_a_spec_says_so(user: User, world: World):
    finished_run(world)
    await user.open("/?run=r1")
    assert "holds no spec" in words(user, "form-notice")


async def test_a_program_file_is_loaded_and_its_data_left_to_choose(user: User, world: World, tmp_path):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    user.find(marker="load-spec").click()
    await until(sees(user, marker="spec-upload"))
    await upload(user, "program.json", program().to_json().encode())
    await until(lambda: "Choose the data." in words(user, "form-notice"))
    assert element(user, "program-name").value == "产品 extraction/1"  # type: ignore[attr-defined]
    await until(sees(user, content="The data has no rows"))


async def test_a_file_that_is_neither_says_why(user: User):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    user.find(marker="load-spec").click()
    await until(sees(user, marker="spec-upload"))
    await upload(user, "x.yaml", b"program: {name: x}\ncolour: red\n")
    await until(sees(user, marker="load-problem"))


async def upload(user: User, name: str, content: bytes) -> None:
    from nicegui.elements.upload_files import SmallFileUpload

    made = element(user, "spec-upload")
    await made.handle_uploads([SmallFileUpload(name, "text/plain", content)])  # type: ignore[attr-defined]


async def test_a_job_is_renamed_and_noted_on_and_its_run_follows(user: User, world: World):
    job_id = world.done()
    world.services.record.send(job_id)
    folder = world.jobs.folder(job_id)
    await user.open(f"/jobs/{job_id}")
    user.find(marker="describe").click()
    await until(sees(user, marker="job-title"))
    user.find(marker="job-title").clear().type("最好的 / best 🚀")
    user.find(marker="job-note").type("demo count 8\nsecond line")
    user.find(marker="describe-confirm").click()
    await until(lambda: world.jobs.get(job_id).note)
    await user.open(f"/jobs/{job_id}")
    await user.should_see("最好的 / best 🚀")
    assert words(user, "note") == "demo count 8\nsecond line"
    assert world.jobs.folder(job_id) == folder
    world.services.record.send(job_id)
    run = world.runs.runs[f"run-{job_id}"]
    assert run.name == "最好的 / best 🚀"
    assert run.tags["mlflow.note.content"] == "demo count 8\nsecond line"


async def test_a_title_that_cannot_be_is_told(user: User, world: World):
    job_id = world.done()
    await user.open(f"/jobs/{job_id}")
    user.find(marker="describe").click()
    await until(sees(user, marker="job-title"))
    user.find(marker="job-title").clear()
    user.find(marker="describe-confirm").click()
    await until(sees(user, marker="describe-problem"))
    assert world.jobs.get(job_id).title == "产品 extraction/1"


async def test_a_job_is_deleted_from_its_page(user: User, world: World):
    job_id = world.done()
    world.jobs.write_record(job_id, RecordState(status="sent"))
    await user.open(f"/jobs/{job_id}")
    user.find(marker="delete").click()
    await until(sees(user, marker="confirm-yes"))
    user.find(marker="confirm-yes").click()
    await until(lambda: not world.jobs.search())


async def test_a_waiting_job_says_its_place(user: User, world: World):
    first, second = world.submitted(), world.submitted()
    world.jobs.update(
        first, lambda job: job.model_copy(update={"created_at": job.created_at - timedelta(seconds=9)})
    )
    await user.open(f"/jobs/{second}")
    assert words(user, "job-place") == "number 2 in the queue"
    world.jobs.update(first, lambda job: job.model_copy(update={"status": "running", "started_at": T0}))
    await until(lambda: words(user, "job-place") == "number 1 in the queue")


async def test_jobs_are_found_by_state_and_text(user: User, world: World):
    done, failed = world.done(), world.failed()
    world.services.jobs.describe(done, title="Routing", note="三个 意图")
    await user.open("/jobs?state=failed")
    await until(sees(user, marker=f"job-{failed}"))
    assert not sees(user, marker=f"job-{done}")()
    element(user, "jobs-state").set_value("")  # type: ignore[attr-defined]
    await until(sees(user, marker=f"job-{done}"))
    user.find(marker="jobs-search").type("ROUTING 意图")
    await until(lambda: not sees(user, marker=f"job-{failed}")())
    assert sees(user, marker=f"job-{done}")()
    user.find(marker="jobs-search").clear().type("nothing like it")
    await until(sees(user, marker="no-fit"))
    user.find(marker="show-all").click()
    await until(sees(user, marker=f"job-{failed}"))


@pytest.mark.parametrize("text", ["straße", "STRASSE x", "%_'\"", "TESTER"])
async def test_what_is_looked_for_stands_in_the_address(user: User, world: World, text: str):
    found, other = world.done(), world.failed()
    world.services.jobs.describe(found, title="Straße x %_'\" TESTER'S", note="")
    world.jobs.update(other, lambda job: job.model_copy(update={"who": "anna"}))
    await user.open(f"/jobs?{urlencode({'text': text})}")
    await until(sees(user, marker=f"job-{found}"))
    assert not sees(user, marker=f"job-{other}")()


async def test_a_refused_record_is_sent_again(user: User, world: World):
    job_id = world.done()
    world.jobs.write_record(job_id, RecordState(status="refused", last_error="the experiment was deleted"))
    await user.open(f"/jobs/{job_id}")
    user.find(marker="resend").click()
    await until(lambda: world.jobs.record(job_id).status == "pending")
    # Asking for it may hold the record a little longer; whoever sends meanwhile leaves it alone.
    await until(lambda: world.services.record.send(job_id).status == "sent")
    await until(sees(user, marker="run-link"))


async def test_a_job_runs_again_although_its_file_is_gone(user: User, world: World, tmp_path):
    file = tmp_path / "gone.csv"
    file.write_text("message,product\n" + "".join(f"m{n},p{n}\n" for n in range(12)), encoding="utf-8")
    job_id = world.submitted(data={"path": str(file)})
    world.jobs.update(job_id, lambda job: job.model_copy(update={"status": "cancelled"}))
    file.unlink()
    await user.open(f"/jobs/{job_id}")
    user.find(marker="run-again").click()
    await until(lambda: len(world.queue.submitted) == 2)
    assert world.jobs.rows(world.queue.submitted[1]) == world.jobs.rows(job_id)
