"""The outbox: what a job's record says, and that a server that is away delays it and loses nothing."""

from datetime import UTC, datetime, timedelta

import pytest

from dspyui.adapters.files.jobs import FileJobStore
from dspyui.domain.compiles import (
    CompileResult,
    CompileSpec,
    Evaluation,
    Progress,
    RowResult,
    SplitSummary,
    TrialScore,
    Usage,
)
from dspyui.domain.intervals import Difference
from dspyui.domain.jobs import JobFailure
from dspyui.domain.runs import RunLink, TrackingState
from dspyui.domain.traces import FULL_MARK
from dspyui.errors import FailedError, NotFoundError, UnavailableError
from dspyui.services.documents import parse_spec
from dspyui.services.record import RecordService
from dspyui.settings import Settings
from tests.waiting import close_before_the_clear, wait_until

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ROWS = [{"q": str(i), "a": str(i)} for i in range(10)]


class Server:
    """An MLflow that can be away or refuse, as RunStore and TrackingServer at once."""

    def __init__(self):
        self.away = False
        self.refuses = False
        self.breaks_on = None
        self.runs = {}
        self.traces = []
        self.names = {}
        self.gone = False

    def state(self):
        return TrackingState(status="unreachable" if self.away else "ready", address="http://x")

    def send(self, record):
        if self.away:
            raise UnavailableError("record.busy", job_id="x")
        if self.refuses:
            raise FailedError("record.busy", job_id=record.job_id)
        if record.job_id == self.breaks_on:
            raise OSError("disk")
        self.runs[record.job_id] = record
        return RunLink(run_id=f"run-{record.job_id}", experiment_id="1", url="http://x/run")

    def describe(self, run_id, *, name, note):
        if self.away:
            raise UnavailableError("record.busy", job_id="x")
        if self.gone:
            raise NotFoundError("run.deleted", run_id=run_id, address="http://x")
        self.names.setdefault(run_id, []).append((name, note))

    def send_traces(self, folder, link, *, stop=None):
        if self.away:
            raise UnavailableError("record.busy", job_id="x")
        files = sorted(folder.glob("*.otlp"))
        for sent, file in enumerate(files, start=1):
            file.unlink()
            self.traces.append((link.run_id, file.name))
            if stop is not None and sent < len(files) and stop():
                return sent, 0
        return len(files), 0


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def store(tmp_path):
    return FileJobStore(tmp_path / "data")


@pytest.fixture
def make(store, server, tmp_path):
    made = []

    def make(**variables):
        settings = Settings.load(tmp_path / "none", {"DSPYUI_HOME": str(tmp_path / "data"), **variables})
        made.append(RecordService(settings, store, server, server))
        return made[-1]

    yield make
    for service in made:
        service.close()


def spec(**changes):
    return CompileSpec.model_validate(
        {
            "program": {
                "name": "my program/../x",
                "signature": {"instructions": "Do.", "inputs": [{"name": "q"}], "outputs": [{"name": "a"}]},
            },
            "data": {"rows": ROWS},
            **changes,
        }
    )


DIFFERENCE = Difference(value=0.5, low=0.1, high=0.9, pairs=3, differing=5, method="bootstrap")


def evaluation(score):
    rows = tuple(
        RowResult(
            index=i, inputs={"q": "1"}, expected={"a": "1"}, predicted={"a": "1"}, score=score, by_field={"a": score}
        )
        for i in range(3)
    )  # fmt: skip
    return Evaluation(score=score, rows=rows)


def finished(store, status="done", asked=None, **changes):
    made = asked or spec()
    job = store.create(made, ROWS, title=made.program.name, who="anna")
    split = SplitSummary(rows=3, digest="d" * 64)
    trials = (
        TrialScore(step=0, label="baseline", score=0.1),
        TrialScore(step=1, label="#1", score=0.4, rows="train"),
        TrialScore(step=2, label="#2", score=0.9, rows="minibatch"),
        TrialScore(step=3, label="x", score=0.7),
    )
    usage = Usage(
        lm_calls=5,
        lm_cache_hits=2,
        input_tokens=30,
        output_tokens=10,
        cost=0.25,
        embedding_calls=3,
        embedding_tokens=9,
    )
    store.write_progress(job.id, Progress(trials=trials, usage=usage))
    if status == "done":
        splits = {"train": split, "validation": split, "test": split}
        result = CompileResult(
            baseline=evaluation(0.25), optimised=evaluation(0.75), trials=trials, usage=usage, splits=splits,
            data_digest="e" * 64, versions={"dspy": "3.4.1"}, difference=DIFFERENCE,
        )  # fmt: skip
        store.write_result(job.id, result)
    for name in ("program.json", "dataset/test.jsonl", "evaluation/rows.parquet", "traces/1.otlp"):
        path = store.folder(job.id) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    ends = {"status": status, "started_at": START, "ended_at": START + timedelta(seconds=90), "attempt": 1}
    return store.update(job.id, lambda j: j.model_copy(update={**ends, **changes}))


def test_a_finished_job_becomes_a_finished_run(store, server, make):
    job = finished(store)
    state = make().send(job.id)
    assert (state.status, state.run_id, state.traces_sent) == ("sent", f"run-{job.id}", 1)
    record = server.runs[job.id]
    assert record.status == "FINISHED"
    assert (record.started_at, record.ended_at) == (START, START + timedelta(seconds=90))
    assert record.name == f"my-program-..-x-BootstrapFewShot-{job.created_at:%Y%m%d-%H%M%S}"
    assert record.metrics == {
        "baseline_score": 0.25, "evaluation_score": 0.75, "score_improvement": 0.5, "lm_calls": 5,
        "lm_cache_hits": 2, "input_tokens": 30, "output_tokens": 10, "total_tokens": 40, "cost": 0.25,
        "embedding_calls": 3, "embedding_tokens": 9,
        "duration_seconds": 90,
        "baseline_unreadable": 0, "evaluation_unreadable": 0, "baseline_failed": 0, "evaluation_failed": 0,
        "baseline_score_errors": 0, "evaluation_score_errors": 0, "uncounted_rows": 0,
        "baseline_score.a": 0.25, "evaluation_score.a": 0.75,
        "score_improvement_ci_low": 0.1, "score_improvement_ci_high": 0.9,
    }  # fmt: skip
    assert {name: [(p.step, p.value) for p in points] for name, points in record.series.items()} == {
        "trial_score": [(0, 0.1), (3, 0.7)],
        "trial_score_train": [(1, 0.4)],
        "trial_score_minibatch": [(2, 0.9)],
    }
    assert record.params["optimizer.max_bootstrapped_demos"] == "4"
    assert record.params["lm.task.model"] == "local/smollm2-135m"
    assert record.tags["dspyui.user"] == "anna"
    assert record.tags["dspyui.verdict"] == "better"
    assert (record.params["repeats"], record.params["max_errors"]) == ("1", "10")
    assert {a.artifact_path for a in record.artifacts} == {
        "program/program.json", "dataset/test.jsonl", "evaluation/rows.parquet", "evaluation/result.json",
        "spec/compile.yaml",
    }  # fmt: skip
    assert [(d.context, d.digest, d.source) for d in record.datasets] == [
        (name, "d" * 64, "typed rows") for name in ("train", "validation", "test")
    ]
    written = (store.folder(job.id) / "spec/compile.yaml").read_text()
    assert parse_spec(written) == spec()


def test_judge_errors_and_weights_are_in_the_run(store, server, make):
    job = finished(store, asked=spec(metric={"kind": "llm_judge", "weights": {"a": 2}}))
    result = store.find_result(job.id)
    row = result.optimised.rows[0].model_copy(update={"score": None, "score_errors": 2})
    optimised = result.optimised.model_copy(update={"rows": (row, *result.optimised.rows[1:])})
    store.write_result(job.id, result.model_copy(update={"optimised": optimised, "difference": None}))
    make().send(job.id)
    record = server.runs[job.id]
    assert (record.metrics["judge_errors"], record.metrics["evaluation_score_errors"]) == (2, 2)
    assert record.metrics["uncounted_rows"] == 1
    assert "score_improvement_ci_low" not in record.metrics
    assert record.params["metric.weight.a"] == "2.0"


def test_everything_that_was_asked_for_is_among_the_params(store, server, make):
    signature = {"inputs": [{"name": "q"}], "outputs": [{"name": "a"}, {"name": "b"}]}
    reward = {"kind": "regex", "fields": ["b"], "params": {"pattern": "x+"}}
    asked = spec(
        program={
            "name": "p", "signature": signature,
            "module": {"kind": "best_of_n", "params": {"N": 5}, "reward": reward},
        },
        lms={
            "task": {"model": "openai/task", "temperature": 0.5},
            "prompt": {"model": "openai/prompt", "max_tokens": 9},
            "teacher": {"model": "openai/teacher"},
            "judge": {"model": "openai/judge", "api_base": "http://127.0.0.1:1/v1"},
            "embedder": {"model": "openai/vectors", "api_key_env": "MY_KEY"},
        },
        optimizer={"kind": "knn_few_shot", "params": {"k": 7}},
        metric={"kind": "similarity", "weights": {"a": 2.0, "b": 0.5}},
        data={
            "path": "/somebodys/folder/rows.csv", "columns": {"q": "question"},
            "test": {"path": "/somebodys/folder/heldout.tsv"}, "validation": {"upload": "f" * 64},
            "allow_shared": True,
        },
        seed=3, threads=7, repeats=4, max_errors=5,
    )  # fmt: skip
    job = finished(store, asked=asked)
    make().send(job.id)
    params = server.runs[job.id].params
    expected = {
        "module": "BestOfN", "module.N": "5", "module.threshold": "1.0", "module.module": "chain_of_thought",
        "reward": "regex", "reward.fields": "b", "reward.pattern": "x+", "reward.whole": "False",
        "lm.task.model": "openai/task", "lm.task.temperature": "0.5", "lm.prompt.model": "openai/prompt",
        "lm.prompt.max_tokens": "9", "lm.teacher.model": "openai/teacher", "lm.judge.model": "openai/judge",
        "lm.judge.api_base": "http://127.0.0.1:1/v1", "lm.embedder.model": "openai/vectors",
        "lm.embedder.api_key_env": "MY_KEY", "optimizer": "KNNFewShot", "optimizer.k": "7",
        "metric": "similarity", "metric.fields": "a, b", "metric.weight.a": "2.0", "metric.weight.b": "0.5",
        "data.source": "rows.csv", "data.column.q": "question", "data.test": "heldout.tsv",
        "data.validation": f"upload:{'f' * 64}", "data.allow_shared": "True", "split.train": "0.5", "split.seed": "0",
        "seed": "3", "threads": "7", "repeats": "4", "max_errors": "5",
    }  # fmt: skip
    assert {name: params.get(name) for name in expected} == expected
    assert not {"split.test", "split.validation"} & set(params)
    assert "somebodys" not in str(params)
    written = (store.folder(job.id) / "spec/compile.yaml").read_text()
    assert "somebodys" not in written
    assert parse_spec(written) == asked.portable()
    assert (asked.portable().data.path, asked.portable().data.test.path) == ("rows.csv", "heldout.tsv")


def test_the_files_of_ones_own_metrics_are_told_by_their_digests(store, server, make):
    asked = spec(
        program={
            "name": "p", "signature": spec().program.signature.model_dump(mode="json"),
            "module": {"kind": "refine", "reward": {"kind": "custom", "params": {"name": "polite"}}},
        },
        metric={"kind": "custom", "params": {"name": "length"}},
        digests={"metrics/length.py": "a" * 64, "metrics/polite.py": "b" * 64},
    )  # fmt: skip
    job = finished(store, asked=asked)
    make().send(job.id)
    params = server.runs[job.id].params
    assert (params["metric.name"], params["metric.digest"]) == ("length", "a" * 64)
    assert (params["reward.name"], params["reward.digest"]) == ("polite", "b" * 64)
    assert parse_spec((store.folder(job.id) / "spec/compile.yaml").read_text()).digests == asked.digests


def test_a_column_of_splits_is_told_instead_of_shares(store, server, make):
    job = finished(store, asked=spec(data={"path": "rows.csv", "split_column": "part"}))
    make().send(job.id)
    params = server.runs[job.id].params
    assert params["split.column"] == "part"
    assert "split.train" not in params


def test_a_failed_job_becomes_a_failed_run_with_its_error(store, server, make):
    failure = JobFailure(code="record.busy", values={"job_id": "x"})
    job = finished(store, "failed", failure=failure)
    make().send(job.id)
    record = server.runs[job.id]
    assert record.status == "FAILED"
    assert record.tags["dspyui.error_code"] == "record.busy"
    assert record.tags["dspyui.error"] == failure.sentence("en_US")
    assert "evaluation_score" not in record.metrics
    assert record.metrics["lm_calls"] == 5


def test_a_cancelled_job_becomes_a_killed_run(store, server, make):
    job = finished(store, "cancelled")
    make().send(job.id)
    assert server.runs[job.id].status == "KILLED"


def test_a_server_that_is_away_delays_the_record_and_loses_nothing(store, server, make):
    job = finished(store)
    server.away = True
    service = make()
    service.start()
    assert service.wait_sent(job.id, seconds=0.5).status == "pending"
    assert service.send(job.id).last_error
    assert (store.folder(job.id) / "traces/1.otlp").exists()
    server.away = False
    assert service.wait_sent(job.id, seconds=10).status == "sent"
    assert server.traces == [(f"run-{job.id}", "1.otlp")]


def test_another_start_sends_what_waits(store, server, make):
    jobs = [finished(store) for _ in range(3)]
    service = make()
    service.start()
    wait_until(lambda: {store.record(job.id).status for job in jobs} == {"sent"})
    assert len(server.runs) == 3


def test_one_record_that_breaks_the_sender_does_not_hold_up_the_others(store, server, make, caplog):
    jobs = [finished(store) for _ in range(3)]
    server.breaks_on = jobs[0].id
    service = make()
    service.start()
    wait_until(lambda: all(store.record(job.id).status == "sent" for job in jobs[1:]))
    # The jobs are of one second: which of them comes first is open.
    wait_until(lambda: [r for r in caplog.records if r.levelname == "ERROR"])
    wait_until(lambda: store.record(jobs[0].id).last_error)
    assert (store.record(jobs[0].id).status, store.record(jobs[0].id).last_error) == ("pending", "OSError")
    assert [r.args for r in caplog.records if r.levelname == "ERROR"] == [(jobs[0].id,)]
    server.breaks_on = None
    assert service.wait_sent(jobs[0].id, seconds=10).status == "sent"


def test_a_refused_record_is_not_tried_for_ever(store, server, make):
    job = finished(store)
    server.refuses = True
    state = make().send(job.id)
    assert state.status == "refused"
    assert state.last_error
    assert list(store.pending_records()) == []


def test_a_running_job_shows_as_a_running_run(store, server, make):
    job = store.create(spec(), ROWS, title="t", who="anna")
    service = make()
    assert service.send(job.id).run_id is None
    store.update(job.id, lambda j: j.model_copy(update={"status": "running", "started_at": START}))
    state = service.send(job.id)
    assert server.runs[job.id].status == "RUNNING"
    assert server.runs[job.id].started_at == START
    assert (state.status, state.tries) == ("pending", 1)
    assert service.send(job.id) == state


def test_switches_narrow_what_is_sent(store, server, make):
    job = finished(store)
    make(MLFLOW_LOG_EVALS="false").send(job.id)
    record = server.runs[job.id]
    assert record.series == {}
    assert record.tables == {}
    sent = {a.artifact_path for a in record.artifacts}
    assert not sent & {"evaluation/rows.parquet", "evaluation/result.json"}


def test_a_run_is_made_later_when_somebody_registers(store, server, make):
    job = finished(store)
    store.write_record(job.id, store.record(job.id).model_copy(update={"status": "off"}))
    service = make(MLFLOW_LOG_COMPILES="false")
    assert not service.wanted
    assert service.send(job.id).status == "off"
    link = service.ensure_run(job.id)
    assert link.run_id == f"run-{job.id}"
    assert service.ensure_run(job.id) == link
    assert store.record(job.id).status == "sent"


def test_no_run_with_tracking_off(store, make):
    job = finished(store)
    with pytest.raises(UnavailableError) as caught:
        make(MLFLOW_ENABLED="false").ensure_run(job.id)
    assert caught.value.code == "record.tracking_off"


def test_only_one_process_sends_a_record(store, server, make):
    job = finished(store)
    with store.lock_record(job.id) as mine:
        assert mine
        assert make().send(job.id).status == "pending"
    assert server.runs == {}


def describe(store, job, **changes):
    return store.update(job.id, lambda j: j.model_copy(update=changes))


def test_a_job_renamed_while_it_runs_has_a_run_of_that_name_at_the_end(store, server, make):
    job = store.create(spec(), ROWS, title=spec().program.name, who="tester")
    describe(store, job, status="running", started_at=job.created_at)
    service = make()
    service.send(job.id)
    assert server.runs[job.id].name.startswith("my-program-..-x-BootstrapFewShot-")
    describe(store, job, title="renamed / 改名")
    describe(store, job, status="cancelled", ended_at=job.created_at)
    service.send(job.id)
    assert (server.runs[job.id].name, server.runs[job.id].status) == ("renamed / 改名", "KILLED")


def test_a_job_renamed_after_it_was_sent_gets_its_run_renamed_once(store, server, make):
    job = finished(store)
    service = make()
    service.send(job.id)
    assert list(store.pending_records()) == []
    describe(store, job, title="最好的 🚀", note="why")
    assert list(store.pending_records()) == [job.id]
    service.start()
    wait_until(lambda: not list(store.pending_records()))
    assert server.names == {f"run-{job.id}": [("最好的 🚀", "why")]}
    service.send(job.id)
    assert len(server.names[f"run-{job.id}"]) == 1


def test_a_note_made_before_it_was_sent_comes_with_the_run(store, server, make):
    job = finished(store)
    describe(store, job, title="mine / 我的", note="**why**")
    make().send(job.id)
    record = server.runs[job.id]
    assert (record.name, record.tags["mlflow.note.content"]) == ("mine / 我的", "**why**")
    assert server.names == {}


def test_a_job_nobody_noted_on_leaves_the_note_of_its_run_alone(store, server, make):
    job = finished(store)
    make().send(job.id)
    assert "mlflow.note.content" not in server.runs[job.id].tags
    describe(store, job, title="new")
    make().send(job.id)
    assert server.names[f"run-{job.id}"] == [("new", None)]


def test_a_new_name_waits_for_a_server_that_is_away(store, server, make):
    job = finished(store)
    make().send(job.id)
    describe(store, job, title="new")
    server.away = True
    assert make().send(job.id).last_error
    server.away = False
    make().send(job.id)
    assert server.names[f"run-{job.id}"] == [("new", None)]


def test_a_new_name_of_a_deleted_run_is_said_and_not_asked_for_ever(store, server, make):
    job = finished(store)
    make().send(job.id)
    describe(store, job, title="new")
    server.gone = True
    state = make().send(job.id)
    assert "was deleted" in state.last_error
    assert (state.status, list(store.pending_records())) == ("sent", [])


def test_a_refused_record_can_be_sent_again(store, server, make):
    job = finished(store)
    server.refuses = True
    service = make()
    assert service.send(job.id).status == "refused"
    server.refuses = False
    service.start()
    service.resend(job.id)
    wait_until(lambda: store.record(job.id).status == "sent")


def test_a_full_disk_here_refuses_no_record(store, server, make, monkeypatch, caplog):
    job = finished(store)
    service = make()

    def full(job_id, record):
        raise FailedError("storage.full", path="x", free="0", problem="No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_record", full)
        with pytest.raises(FailedError):
            service.send(job.id)
    assert store.record(job.id).status == "pending"
    assert service.send(job.id).status == "sent"
    assert len(server.runs) == 1


@pytest.mark.parametrize(
    ("name", "start"),
    [("抽取 🚀", "抽取-🚀-"), ("a/b:c*d?e'f", "a-b-c-d-e-f-"), ("  x  ", "x-"), ("🚀", "🚀-")],
)
def test_a_runs_own_name_keeps_letters_and_emoji_of_any_kind(store, server, make, name, start):
    job = store.create(
        spec(program={"name": name, "signature": {"inputs": [{"name": "q"}], "outputs": [{"name": "a"}]}}),
        ROWS,
        title=name,
        who="x",
    )
    store.update(
        job.id, lambda j: j.model_copy(update={"status": "failed", "started_at": START, "ended_at": START})
    )
    make().send(job.id)
    made = server.runs[job.id]
    assert made.tags["dspyui.program"] == made.params["program"] == name
    assert made.name.startswith(
        {"抽取 🚀": "抽取-🚀-", "a/b:c*d?e'f": "a-b-c-d-e-f-", "  x  ": "x-", "🚀": "🚀-"}[name]
    )


def test_what_the_last_job_has_left_is_still_sent_at_the_end(store, server, make):
    server.away = True
    service = make()
    service.start()
    job = finished(store)
    assert store.record(job.id).status == "pending"
    server.away = False
    service.close()
    assert store.record(job.id).status == "sent"
    assert server.traces == [(f"run-{job.id}", "1.otlp")]


def test_the_end_does_not_wait_for_all_of_very_much(store, server, make):
    """A piece is sent, the rest is kept, and the next start sends it and nothing twice."""
    service = make()
    job = finished(store)
    for number in range(2, 5):
        (store.folder(job.id) / f"traces/{number}.otlp").write_text("x")
    calls = iter([False, True])
    assert service.send(job.id, stop=lambda: next(calls, True)).status == "pending"
    assert [name for _run, name in server.traces] == ["1.otlp", "2.otlp"]
    again = make()
    state = again.send(job.id)
    assert (state.status, state.traces_sent) == ("sent", 4)
    assert [name for _run, name in server.traces] == ["1.otlp", "2.otlp", "3.otlp", "4.otlp"]


def test_a_record_of_which_nothing_is_left_is_sent_however_long_it_took(store, make):
    """Its Run alone may take longer than the piece: the record would be told to go on for ever."""
    assert make().send(finished(store).id, stop=lambda: True).status == "sent"


def test_a_compile_that_waits_for_room_has_its_traces_sent_before_it_ends(store, server, make):
    job = store.create(spec(), ROWS, title="t", who="anna")
    traces = store.folder(job.id) / "traces"
    traces.mkdir()
    (traces / "1.otlp").write_text("x")
    store.update(job.id, lambda j: j.model_copy(update={"status": "running", "started_at": START}))
    service = make()
    for _ in range(2):
        service.send(job.id)
    assert server.traces == []
    (traces / FULL_MARK).touch()
    state = service.send(job.id)
    assert (state.status, state.traces_sent) == ("pending", 1)
    assert server.traces == [(f"run-{job.id}", "1.otlp")]


def test_a_close_at_the_wrong_moment_is_not_slept_over(make):
    service = make()
    close_before_the_clear(service)
    service._loop()
