"""What every run store does, the one in memory and MLflow's."""

from datetime import timedelta

import pytest

from dspyui.domain.runs import ArtifactFile, MetricPoint
from dspyui.errors import NotFoundError
from tests.mlflow_world import STARTED, compiled


def test_a_record_becomes_a_run(runs, make_run):
    record = make_run.record(
        params={"module": "Predict", "empty": ""},
        tags={"dspyui.kind": "compile"},
        series={"trial_score": (MetricPoint(step=0, value=0.2), MetricPoint(step=1, value=0.7))},
    )
    link = runs.send(record)
    run = runs.get_run(link.run_id)
    assert (run.run_id, run.experiment_id, run.url) == (link.run_id, link.experiment_id, link.url)
    assert link.url.endswith(f"/#/experiments/{link.experiment_id}/runs/{link.run_id}")
    assert (run.name, run.status, run.job_id) == ("产品-LabeledFewShot", "FINISHED", record.job_id)
    assert (run.started_at, run.ended_at) == (STARTED, STARTED + timedelta(seconds=5))
    assert run.params == {"module": "Predict", "empty": ""}
    assert run.metrics == {**record.metrics, "trial_score": 0.7}
    assert run.tags["dspyui.kind"] == "compile"


def test_a_record_sent_again_stays_one_run(runs, make_run):
    running = make_run.record(status="RUNNING", ended_at=None)
    first = runs.send(running)
    assert runs.get_run(first.run_id).status == "RUNNING"
    assert runs.get_run(first.run_id).ended_at is None
    done = running.model_copy(update={"status": "FAILED", "ended_at": STARTED + timedelta(seconds=1)})
    assert runs.send(running) == runs.send(done) == runs.send(done) == first
    assert runs.get_run(first.run_id).status == "FAILED"
    assert [run.job_id for run in runs.search_runs(limit=1000)].count(running.job_id) == 1


def test_the_newest_runs_come_first_and_are_limited(runs, make_run):
    ids = [make_run(started_at=STARTED + timedelta(days=400, seconds=i)) for i in range(3)]
    assert [run.run_id for run in runs.search_runs(limit=2)] == [ids[2], ids[1]]


def test_a_run_gives_its_program_and_an_input_example(runs, make_run):
    program = compiled()
    run_id = make_run(program)
    assert runs.program(run_id) == program.to_json()
    assert runs.input_example(run_id) == {"message": "你好 lamp", "count": 2, "tags": ["x", "y"]}


def test_a_run_without_a_program_says_so(runs, make_run):
    run_id = make_run(artifacts=())
    for read in (runs.program, runs.input_example):
        with pytest.raises(NotFoundError) as caught:
            read(run_id)
        assert caught.value.code == "run.no_program"


@pytest.mark.parametrize("run_id", ["0" * 32, "no such", "../x", "x" * 300])
def test_an_unknown_run_is_not_found(runs, run_id):
    with pytest.raises(NotFoundError) as caught:
        runs.get_run(run_id)
    assert caught.value.code == "run.unknown"


def test_a_run_gives_its_spec_and_its_splits(runs, make_run, tmp_path):
    files = {
        "spec/compile.yaml": "program: {name: 抽取 🚀}\n",
        "dataset/train.jsonl": '{"q": "你", "n": 1}\n{"q": "b\u2028c\u0085d"}\n',
    }
    artifacts = []
    for path, text in files.items():
        file = tmp_path / path.replace("/", "-")
        file.write_text(text, encoding="utf-8")
        artifacts.append(ArtifactFile(file=file, artifact_path=path))
    run_id = make_run(artifacts=tuple(artifacts))
    assert runs.spec(run_id) == files["spec/compile.yaml"]
    splits = runs.splits(run_id)
    assert (splits.train, splits.validation, splits.test) == (
        ({"q": "你", "n": 1}, {"q": "b\u2028c\u0085d"}), (), (),
    )  # fmt: skip


def test_a_run_without_spec_and_rows_says_so(runs, make_run):
    run_id = make_run(artifacts=())
    for read, code in ((runs.spec, "run.no_spec"), (runs.splits, "run.no_data")):
        with pytest.raises(NotFoundError) as caught:
            read(run_id)
        assert caught.value.code == code


@pytest.mark.parametrize("name", ["最好的 / best: 🚀 'x' \"y\" #1?&", "x" * 200, "../../etc"])
def test_a_run_gets_another_name_and_a_note(runs, make_run, name):
    run_id = make_run(tags={"mlflow.note.content": "written in MLflow"})
    runs.describe(run_id, name=name, note=None)
    run = runs.get_run(run_id)
    assert (run.name, run.tags["mlflow.note.content"]) == (name, "written in MLflow")
    note = "**八个**示例\n" + "🚀" * 2000
    runs.describe(run_id, name=name, note=note)
    assert runs.get_run(run_id).tags["mlflow.note.content"] == note
    with pytest.raises(NotFoundError):
        runs.describe("0" * 32, name="x", note=None)
