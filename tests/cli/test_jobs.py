"""`dspyui jobs`: what the pages can do to jobs, from a terminal or a script."""

import pytest

from dspyui.adapters.dbos_jobs.leases import Leases
from dspyui.domain.batches import BatchSpec
from dspyui.domain.compiles import Evaluation, Progress, RowResult
from dspyui.domain.jobs import JobFailure, RecordState
from dspyui.i18n import Text
from dspyui.settings import Settings
from tests.api.world import World
from tests.batch_world import program
from tests.unit.test_ui_batch import finish

UNKNOWN = "20260101-000000-00000000"


@pytest.fixture
def world():
    """On the data folder that the commands use."""
    return World(Settings.load())


@pytest.fixture
def batch(world, tmp_path):
    """A finished batch's id."""
    rows, model = tmp_path / "rows.csv", tmp_path / "things.json"
    rows.write_text("message\n" + "My thing broke.\n" * 12)
    model.write_text(program("http://127.0.0.1:9/v1").to_json())
    spec = {"model": str(model), "path": str(rows)}
    job = world.services.batches.submit(BatchSpec.model_validate(spec), who="tester")
    finish(world, job.id)
    return job.id


def test_jobs_are_listed_and_filtered(dspyui, world, batch):
    done, failed = world.done(), world.failed()
    listed = dspyui("jobs", "list", "--json").document["jobs"]
    assert [(job["id"], job["kind"], job["status"]) for job in listed] == [
        (job.id, job.kind, job.status) for job in world.jobs.search()
    ]
    assert {job["id"] for job in listed} == {done, failed, batch}
    found = dspyui("jobs", "list", "--state", "failed", "--json").document["jobs"]
    assert [job["id"] for job in found] == [failed]
    world.services.jobs.describe(done, note="the best of all")
    assert dspyui("jobs", "list", "--search", "BEST all").out.startswith(
        f"{done}  Done         Compile   产品"
    )
    assert dspyui("jobs", "list", "--search", "nowhere").out == "No job fits.\n"
    said = dspyui("jobs", "list", "--state", "lost", "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "cli.jobs_state")


def test_a_job_whose_process_was_killed_is_called_interrupted(dspyui, world):
    """The lease of the process is free: the file it locked is there or not, and nobody holds it."""
    job_id, running = world.submitted(), world.submitted()
    for each, executor in ((job_id, "ui-dead"), (running, "ui-alive")):
        changes = {"status": "running", "executor": executor}
        world.jobs.update(each, lambda job, changes=changes: job.model_copy(update=changes))
    world.jobs.write_progress(job_id, Progress(phase="optimising"))
    lease = Leases(world.settings.home.resolve() / "executors").take("ui-alive")
    try:
        listed = {job["id"]: job for job in dspyui("jobs", "list", "--json").document["jobs"]}
        said = dspyui("jobs", "list").out
        shown = dspyui("jobs", "show", job_id)
    finally:
        lease.release()
    assert (listed[job_id]["status"], listed[job_id]["interrupted"]) == ("running", True)
    assert (listed[running]["status"], listed[running]["interrupted"]) == ("running", False)
    assert f"{job_id}  Interrupted  Compile" in said
    assert f"{running}  Running      Compile" in said
    assert said.endswith("It goes on with the next start of dspyui ui.\n")
    assert f"{job_id}: Interrupted, by tester" in shown.out
    # How much an optimizer will do is not known beforehand.
    assert shown.out.endswith("\nOptimising\n")


def test_columns_stand_under_each_other_in_chinese(dspyui, world):
    world.done()
    world.failed()
    lines = dspyui("jobs", "list", "--lang", "zh_CN").out.splitlines()
    # Both were made within a second, which alone says nothing of their order.
    lines.sort(key=lambda line: len(line.split()[1]))
    assert [line.split()[1] for line in lines] == ["失败", "已完成"]
    assert lines[0].index("编译") == lines[1].index("编译") + 1


def test_a_done_compile_is_shown_with_what_it_gained(dspyui, world):
    job_id = world.done()
    shown = dspyui("jobs", "show", job_id, "--json").document
    assert shown["job"]["status"] == "done"
    assert (shown["failure"], shown["place"]) == (None, None)
    assert shown["summary"]["evaluation_score"] == 0.75
    said = dspyui("jobs", "show", job_id).out
    assert f"Compile {job_id}: Done, by tester, " in said
    assert "Score on the test rows: 0.25 before, 0.75 after (+0.50)" in said


FIELDS = {
    "en_US": (
        "By field: product 0.50 → 1.00, size 0.00 → 0.50",
        "Replies that could not be read and scored 0.00: 1",
        "Calls that failed: 0; scores that could not be made: 1",
        "Test rows that count for neither program: 1",
    ),
    "zh_CN": (
        "各字段得分：product 0.50 → 1.00, size 0.00 → 0.50",
        "无法解析、按 0.00 计分的回复：1 条",
        "失败的调用：0 次；未能得出的得分：1 个",
        "对两个程序都不计入的测试行：1 行",
    ),
}


@pytest.mark.parametrize("language", FIELDS)
def test_fields_and_what_is_missing_are_told(dspyui, world, language):
    """Three test rows: a reply of the first could not be read, and one field of the last has no score."""
    job_id = world.done()
    scores = ([(0, 0), (1, 0), (1, None)], [(1, 0), (1, 1), (1, 1)])

    def evaluation(score, found):
        rows = []
        for index, pair in enumerate(found):
            known = {
                name: value
                for name, value in zip(("product", "size"), pair, strict=True)
                if value is not None
            }
            missing = {"unreadable": int(pair == (0, 0)), "score_errors": len(pair) - len(known)}
            rows.append(
                RowResult(
                    index=index, inputs={"message": "m"}, expected={}, predicted={}, score=0.5, by_field=known,
                    **missing,
                )
            )  # fmt: skip
        return Evaluation(score=score, rows=tuple(rows))

    before, after = scores
    made = world.jobs.find_result(job_id).model_copy(
        update={"baseline": evaluation(0.25, before), "optimised": evaluation(0.75, after)}
    )
    world.jobs.write_result(job_id, made)
    summary = dspyui("jobs", "show", job_id, "--json").document["summary"]
    assert summary["by_field"]["size"] == {"baseline_score": 0.0, "evaluation_score": 0.5}
    assert [summary[name] for name in ("unreadable", "failed", "score_errors", "uncounted")] == [1, 0, 1, 1]
    said = dspyui("jobs", "show", job_id, "--lang", language).out.splitlines()
    assert [line for line in FIELDS[language] if line not in said] == []


def test_one_that_waits_runs_or_failed_is_shown_too(dspyui, world):
    waiting, failed = world.submitted(), world.failed()
    assert "Number 1 in the queue" in dspyui("jobs", "show", waiting).out
    world.jobs.update(waiting, lambda job: job.model_copy(update={"status": "running"}))
    shown = dspyui("jobs", "show", waiting, "--json")
    assert (shown.code, shown.document["progress"]) == (0, {"phase": "queued", "done": 0, "total": 0})
    assert dspyui("jobs", "show", waiting).out.endswith("\nWaiting\n")
    said = dspyui("jobs", "show", failed, "--lang", "zh_CN")
    assert (said.code, "任务因意外错误而停止：no such luck" in said.out) == (0, True)
    assert dspyui("jobs", "show", failed, "--json").document["failure"]["code"] == "job.unexpected"


def test_a_batch_is_shown_with_its_rows(dspyui, batch):
    shown = dspyui("jobs", "show", batch, "--json").document
    assert (shown["job"]["kind"], shown["summary"]["error_count"]) == ("batch", 2)
    assert "Rows: 12, answered 10, failed 2" in dspyui("jobs", "show", batch).out
    assert "The provider failed on its side (engine.server): 2" in dspyui("jobs", "show", batch).out
    assert "提供商服务器故障（engine.server）：2" in dspyui("jobs", "show", batch, "--lang", "zh").out


def test_a_job_is_renamed_and_noted_on_each_without_the_other(dspyui, world):
    job_id = world.done()
    assert dspyui("jobs", "rename", job_id, " 最好的 ", "--json").document["job"]["title"] == "最好的"
    assert dspyui("jobs", "note", job_id, "why **so**", "--json").document["job"]["note"] == "why **so**"
    said = dspyui("jobs", "rename", job_id, "again")
    assert (said.out.splitlines()[0], said.out.splitlines()[-1], said.err) == ("again", "why **so**", "")
    job = world.jobs.get(job_id)
    assert (job.title, job.note) == ("again", "why **so**")
    dspyui("jobs", "note", job_id, "")
    assert (world.jobs.get(job_id).title, world.jobs.get(job_id).note) == ("again", "")
    for command, words, code in (("rename", " ", "job.title"), ("note", "x" * 5001, "job.note_long")):
        assert dspyui("jobs", command, job_id, words, "--json").document["error"]["code"] == code


def test_whose_run_is_there_is_told_that_it_follows(dspyui, world, batch):
    assert "a running server brings it up to date" in dspyui("jobs", "rename", batch, "x").err
    assert (
        world.jobs.record(batch).is_behind(world.jobs.get(batch)) is False
    )  # of a version that kept no title
    job_id = world.done()
    sent = RecordState(status="sent", run_id="r", title=world.jobs.get(job_id).title)
    world.jobs.write_record(job_id, sent)
    dspyui("jobs", "rename", job_id, "x")
    assert list(world.jobs.pending_records()) == [job_id]


def test_a_waiting_job_is_cancelled_and_one_of_a_dead_process_too(dspyui, world):
    waiting, left = world.submitted(), world.submitted()
    moves = {"status": "running", "executor": "ui-00000000"}
    world.jobs.update(left, lambda job: job.model_copy(update=moves))
    for job_id in (waiting, left):
        said = dspyui("jobs", "cancel", job_id, "--json")
        assert (said.code, said.document["job"]["status"]) == (0, "cancelled")
        assert world.jobs.get(job_id).status == "cancelled"
        # Said once more, it is so already.
        assert dspyui("jobs", "cancel", job_id).code == 0


def test_what_has_ended_by_itself_cannot_be_cancelled(dspyui, world):
    for job_id in (world.done(), world.failed()):
        said = dspyui("jobs", "cancel", job_id, "--json")
        assert (said.code, said.document["error"]["code"]) == (2, "cli.job_ended")


def test_nothing_is_deleted_unasked_where_nobody_can_answer(dspyui, world):
    job_id = world.done()
    world.jobs.write_record(job_id, RecordState(status="off"))
    for language, word in (("en_US", "add --yes"), ("zh_CN", "请加上 --yes")):
        said = dspyui("jobs", "delete", job_id, "--json", "--lang", language)
        assert (said.code, said.document["error"]["code"]) == (2, "cli.yes_needed")
        assert word in said.err
        assert f"({world.jobs.get(job_id).title})" in said.err or "（" in said.err
    assert dspyui("jobs", "delete", job_id, "--yes", "--json").document == {"deleted": job_id}
    assert list(world.jobs.search()) == []


def test_on_a_terminal_it_is_asked_once(dspyui, world, answers):
    job_id = world.done()
    answers("\n")
    said = dspyui("jobs", "delete", job_id)
    assert (said.code, said.out) == (130, "")
    assert "Go on? [y/N]" in said.err
    # What would be lost stands in the question, so agreeing to it agrees to that.
    assert "there will be no Run of this job" in said.err
    answers("y\n")
    assert dspyui("jobs", "delete", job_id).out == f"Deleted: job {job_id}\n"
    assert list(world.jobs.search()) == []


def test_a_record_that_waits_is_not_lost_by_yes_alone(dspyui, world):
    job_id = world.done()
    said = dspyui("jobs", "delete", job_id, "--yes", "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "job.delete_pending")
    assert "--even-unsent" in said.err
    assert dspyui("jobs", "delete", job_id, "--yes", "--even-unsent").code == 0


def test_a_job_that_runs_is_not_deleted(dspyui, world):
    job_id = world.submitted()
    said = dspyui("jobs", "delete", job_id, "--yes", "--even-unsent", "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "job.delete_running")
    assert world.jobs.get(job_id).id == job_id


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["rename", "x"], ["note", "x"], ["again"], ["cancel"], ["delete", "--yes"]],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("job_id", [UNKNOWN, "../../x"])
def test_a_job_that_is_not_there(dspyui, arguments, job_id):
    said = dspyui("jobs", arguments[0], job_id, *arguments[1:], "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "job.unknown")


@pytest.mark.parametrize("language", ["en_US", "zh_CN"])
@pytest.mark.parametrize(
    ("code", "values", "word"),
    [
        ("engine.auth", {"variable": "MY_KEY"}, "MY_KEY"),
        ("engine.key_needed", {}, "--api-key-env"),
        ("engine.key_unset", {"variable": "MY_KEY"}, "MY_KEY"),
        ("engine.not_configured", {}, ".env"),
        # A job of an earlier version does not know the variable: its sentence is the usual one.
        ("engine.auth", {}, None),
    ],
)
def test_what_went_wrong_with_a_key_is_told_by_its_variable_and_leads_to_no_page(
    dspyui, world, language, code, values, word
):
    job_id = world.submitted()
    known = {"model": "openai/x", "problem": "no", **values}
    moves = {"status": "failed", "failure": JobFailure(code=code, values=known)}
    world.jobs.update(job_id, lambda job: job.model_copy(update=moves))
    said = dspyui("jobs", "show", job_id, "--json", "--lang", language).document["failure"]["message"]
    assert "openai/x" in said
    assert (word or "") in said
    assert ("Settings" in said or "“设置”" in said) is (word is None)
    assert (Text(language)(f"error.{code}", **known) == said) is (word is None)
