"""Every metric and every file format, from a file on disk to a scored result; and what of this machine a Run tells.

The fake server answers right once it was shown an example, so that score and prompt must change.
"""

import json
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.adapters.files.artifacts import FileArtifactWriter
from dspyui.adapters.files.metrics import FileMetrics
from dspyui.bootstrap import _child_environment
from dspyui.domain.jobs import JobFailure
from dspyui.domain.metrics import METRICS
from dspyui.domain.tables import DataFormat
from dspyui.errors import DSPyUIError
from dspyui.services.compile import CompileRun
from dspyui.services.documents import parse_spec
from dspyui.services.run_records import run_record
from dspyui.settings import Settings
from tests.api.world import World
from tests.fake_openai import FakeOpenAI, chat, last_input

# A number is a text, a number, a JSON document and what a pattern can find: every metric can look at it.
ROWS = [{"message": f"My lamp {number} broke.", "product": str(number)} for number in range(100, 130)]
OWN = "def metric(example, prediction):\n    return float(prediction['product'] == example['product']), 'Mine.'\n"
PARAMS = {"regex": {"pattern": "^[0-9]+$"}, "custom": {"name": "mine"}}


def knowing(messages):
    """The number once it was shown an example; as a judge, pleased with numbers alone."""
    if "You judge" in messages[-1]["content"]:
        answer = messages[-1]["content"].split("<answer>\n")[1].split("\n</answer>")[0]
        return f"Seen.\nSCORE: {10 if answer.isdigit() else 0}"
    return chat(product=last_input(messages, "message").split()[2] if len(messages) > 2 else "something")


def as_csv(path, mark=","):
    lines = [mark.join(ROWS[0]), *(mark.join(row.values()) for row in ROWS)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


WRITE = {
    "csv": as_csv,
    "tsv": lambda path: as_csv(path, "\t"),
    "json": lambda path: path.write_text(json.dumps(ROWS)),
    "jsonl": lambda path: path.write_text("".join(json.dumps(row) + "\n" for row in ROWS)),
    "parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path),
}


@pytest.fixture
def server():
    with FakeOpenAI(knowing) as fake:
        yield fake


@pytest.fixture
def world(tmp_path):
    made = World(Settings.load(env_file=tmp_path / "none", environ={}, home=tmp_path / "the home"))
    folder = tmp_path / "the home" / "metrics"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(OWN, encoding="utf-8")
    return made


def submitted(world, server, tmp_path, kind="csv", **changes):
    """A queued job whose rows lie in a file of that format."""
    folder = tmp_path / "somebodys folder"
    folder.mkdir()
    path = folder / f"rows.{kind}"
    WRITE[kind](path)
    lm = {"model": "openai/fake", "api_base": server.base_url, "num_retries": 0}
    return world.submitted(
        **{
            "program": {"signature": {"inputs": [{"name": "message"}], "outputs": [{"name": "product"}]}},
            "lms": {"task": lm, "embedder": {"model": "openai/words", "api_base": server.base_url}},
            "optimizer": {"kind": "labeled_few_shot", "params": {"k": 2}},
            "data": {"path": str(path)},
            **changes,
        }
    )


def compiled(world, tmp_path, job_id):
    return CompileRun(
        job_id,
        jobs=world.jobs,
        programs=world.programs,
        artifacts=FileArtifactWriter(world.jobs),
        engine=DspyEngine(
            world.jobs.spec(job_id).lms,
            environment={},
            cache_folder=tmp_path / "cache",
            metric_files=FileMetrics(tmp_path / "the home"),
        ),
        eval_sink=None,
    ).run()


def test_every_format_has_a_writer_here():
    assert set(WRITE) == set(DataFormat.__args__)


@pytest.mark.parametrize("kind", WRITE)
def test_every_file_format_is_compiled(world, server, tmp_path, kind):
    result = compiled(world, tmp_path, submitted(world, server, tmp_path, kind))
    assert (result.baseline.score, result.optimised.score) == (0.0, 1.0)
    assert len(result.optimised.prompt) > len(result.baseline.prompt)
    assert {name: split.rows for name, split in result.splits.items()} == {
        "train": 15, "validation": 6, "test": 9,
    }  # fmt: skip


@pytest.mark.parametrize("kind", METRICS)
def test_every_metric_sees_that_it_got_better(world, server, tmp_path, kind):
    metric = {"kind": kind, "params": PARAMS.get(kind, {})}
    result = compiled(world, tmp_path, submitted(world, server, tmp_path, metric=metric))
    assert result.baseline.score == pytest.approx(0, abs=0.2)
    assert result.optimised.score == pytest.approx(1)
    assert result.difference is not None
    assert result.difference.word == "better"
    assert all(row.feedback for row in result.baseline.rows)
    assert result.usage.embedding_calls == len(server.embedded)
    assert (result.usage.embedding_calls > 0) == (kind == "similarity")


# What leaves this machine.


def told(record):
    """Everything that MLflow gets of a job, as one text."""
    parts = [record.name, str(record.params), str(record.tags)]
    parts += [str((made.name, made.source)) for made in record.datasets]
    for artifact in record.artifacts:
        name = artifact.artifact_path
        parts.append(name)
        content = artifact.file.read_bytes()
        parts.append(
            str(pq.read_table(artifact.file).to_pylist()) if name.endswith(".parquet") else content.decode()
        )
    return "\n".join(parts)


def record_of(world, job_id, **changes):
    job = world.jobs.update(job_id, lambda made: made.model_copy(update=changes))
    return run_record(
        job, world.jobs.spec(job_id), world.jobs.progress(job_id), world.jobs.find_result(job_id),
        world.jobs.folder(job_id), with_evaluations=True,
    )  # fmt: skip


def test_a_run_tells_no_folder_of_this_machine(world, server, tmp_path):
    metric = {"kind": "custom", "params": {"name": "mine"}}
    optimizer = {"kind": "knn_few_shot", "params": {"k": 2, "max_bootstrapped_demos": 0}}
    job_id = submitted(world, server, tmp_path, metric=metric, optimizer=optimizer)
    compiled(world, tmp_path, job_id)
    record = record_of(world, job_id, status="done")
    said = told(record)
    assert {artifact.artifact_path for artifact in record.artifacts} >= {
        "spec/compile.yaml", "program/program.json", "dataset/train.jsonl", "evaluation/rows.parquet",
    }  # fmt: skip
    for secret in (str(tmp_path), "somebodys folder", "the home"):
        assert secret not in said
    assert record.params["data.source"] == "rows.csv"
    spec = parse_spec((world.jobs.folder(job_id) / "spec/compile.yaml").read_text())
    assert spec.data.path == "rows.csv"
    assert set(spec.digests) == {"data", "metrics/mine.py"}
    assert spec.digests["data"] == record.tags["dspyui.data_digest"]
    assert record.params["metric.digest"] == spec.digests["metrics/mine.py"]
    assert record.metrics["embedding_calls"] == len(server.embedded) > 0


@pytest.mark.parametrize(
    "broken",
    ["def metric(e, p):\n    return open(__file__ + '.no')\n", "import nothing_like_it\n", "def metric(:\n"],
)
def test_neither_does_a_run_that_failed_by_a_metric_of_ones_own(world, server, tmp_path, broken):
    file = tmp_path / "the home" / "metrics" / "mine.py"
    file.write_text(broken, encoding="utf-8")
    metric = {"kind": "custom", "params": {"name": "mine"}}
    job_id = submitted(world, server, tmp_path, metric=metric, max_errors=3)
    with pytest.raises(DSPyUIError) as caught:
        compiled(world, tmp_path, job_id)
    failure = JobFailure(code=caught.value.code, values=caught.value.values)
    record = record_of(world, job_id, status="failed", failure=failure)
    assert record.tags["dspyui.error"]
    assert str(tmp_path) not in told(record)


def test_the_digest_of_a_metric_that_changed_while_it_waited_is_that_of_the_one_that_scores(
    world, server, tmp_path
):
    metric = {"kind": "custom", "params": {"name": "mine"}}
    job_id = submitted(world, server, tmp_path, metric=metric)
    before = world.jobs.spec(job_id)
    (tmp_path / "the home" / "metrics" / "mine.py").write_text(OWN + "# later\n", encoding="utf-8")
    services = world.services
    # What the parent does right before it starts the child.
    _child_environment(services.settings, world.jobs, job_id, services.local_lm, services.metrics)
    after = world.jobs.spec(job_id)
    now = sha256((tmp_path / "the home" / "metrics" / "mine.py").read_bytes()).hexdigest()
    assert after.digests == {**before.digests, "metrics/mine.py": now} != before.digests
    assert after == before.model_copy(update={"digests": after.digests})
