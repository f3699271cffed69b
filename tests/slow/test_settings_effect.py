"""What each MLflow setting does, seen in a real MLflow server after `dspyui compile` as a real process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.fake_openai import FakeOpenAI, chat, last_input

pytestmark = pytest.mark.slow

ROWS = [{"message": f"My thing{i}q broke.", "product": f"thing{i}q"} for i in range(20)]


def knowing(messages):
    word = last_input(messages, "message").split()[1]
    return chat(product=word if len(messages) > 2 else "something")


@pytest.fixture(scope="module")
def lm():
    with FakeOpenAI(knowing) as fake:
        yield fake


@pytest.fixture
def compile_with(tmp_path, lm, mlflow_address):
    """Run `dspyui compile` with these settings; gives its answer and the Runs the server has of it."""

    def command(*arguments, **settings):
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "DSPYUI_HOME": str(tmp_path / "data"),
            "MLFLOW_TRACKING_URI": mlflow_address,
            **settings,
        }
        done = subprocess.run(
            [sys.executable, "-m", "dspyui", *arguments, "--json"],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def compile_with(optimizer="bootstrap_few_shot", **settings):
        experiment = settings.setdefault("MLFLOW_EXPERIMENT_NAME", f"effects-{tmp_path.name}")
        spec = tmp_path / "spec.yaml"
        document = {
            "program": {
                "name": "effects",
                "signature": {
                    "instructions": "Name it.",
                    "inputs": [{"name": "message"}],
                    "outputs": [{"name": "product"}],
                },
            },
            "lms": {"task": {"model": "openai/fake", "api_base": lm.base_url}},
            "optimizer": {"kind": optimizer},
            "data": {"rows": ROWS},
        }
        spec.write_text(yaml.safe_dump(document))
        answer = command("compile", str(spec), **settings)
        return answer, Found(mlflow_address, experiment)

    compile_with.command = command
    return compile_with


class Found:
    def __init__(self, address, experiment):
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=address)
        self.experiment = self.client.get_experiment_by_name(experiment)

    @property
    def runs(self):
        return self.client.search_runs([self.experiment.experiment_id]) if self.experiment else []

    def traces(self, run):
        return self.client.search_traces(
            locations=[self.experiment.experiment_id], run_id=run.info.run_id, max_results=500
        )

    def phases(self, run):
        return {trace.info.tags.get("dspyui.phase") for trace in self.traces(run)}

    def artifacts(self, run):
        found = []
        folders = [""]
        while folders:
            for item in self.client.list_artifacts(run.info.run_id, folders.pop() or None):
                (folders if item.is_dir else found).append(item.path)
        return set(found)

    def read(self, run, path, folder):
        return Path(self.client.download_artifacts(run.info.run_id, path, str(folder)))


def test_the_defaults_leave_one_whole_run(compile_with, tmp_path):
    answer, found = compile_with()
    (run,) = found.runs
    assert run.info.run_id == answer["run_id"]
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("effects-BootstrapFewShot-")
    assert run.data.metrics["score_improvement"] == answer["score_improvement"] == 1.0
    for metric in (
        "baseline_score", "evaluation_score", "lm_calls", "lm_cache_hits", "input_tokens", "output_tokens",
        "total_tokens", "duration_seconds",
    ):  # fmt: skip
        assert metric in run.data.metrics
    assert run.data.metrics["lm_calls"] == answer["lm_calls"] > 0
    history = found.client.get_metric_history(run.info.run_id, "trial_score")
    assert [(point.step, point.value) for point in history] == [(0, 0.0), (1, 1.0)]
    for param in (
        "module", "optimizer", "optimizer.max_rounds", "lm.task.model", "metric", "split.test", "split.seed", "seed",
        "signature.inputs", "signature.outputs", "version.dspy",
    ):  # fmt: skip
        assert run.data.params[param]
    assert found.artifacts(run) >= {
        "program/program.json", "prompt/optimized_prompt.txt", "prompt/baseline_prompt.txt", "spec/compile.yaml",
        "dataset/train.jsonl", "dataset/validation.jsonl", "dataset/test.jsonl", "evaluation/rows.parquet",
        "evaluation/rows.json", "evaluation/result.json",
    }  # fmt: skip
    check_files(found, run, tmp_path)
    contexts = {tag.value for given in run.inputs.dataset_inputs for tag in given.tags}
    assert contexts == {"train", "validation", "test"}
    assert all(given.dataset.digest for given in run.inputs.dataset_inputs)
    # 6 test rows and 4 validation rows, each scored before and after.
    assert len(found.traces(run)) == 20
    assert found.phases(run) == {"baseline", "validating_baseline", "validating", "evaluating"}


def check_files(found, run, folder):
    """What the Run holds is filled: prompts as they were sent, the program, the spec, rows and their scores."""
    before, after = (
        found.read(run, f"prompt/{name}_prompt.txt", folder) for name in ("baseline", "optimized")
    )
    assert "Name it." in before.read_text()
    assert "broke." in before.read_text()
    assert len(after.read_text().split("broke.")) > len(before.read_text().split("broke.")), "demonstrations"
    spec = yaml.safe_load(found.read(run, "spec/compile.yaml", folder).read_text())
    assert spec["optimizer"]["kind"] == "bootstrap_few_shot"
    rows = {
        name: found.read(run, f"dataset/{name}.jsonl", folder).read_text().splitlines()
        for name in ("train", "validation", "test")
    }
    assert {name: len(lines) for name, lines in rows.items()} == {"train": 10, "validation": 4, "test": 6}
    assert sorted(json.loads(line)["product"] for part in rows.values() for line in part) == sorted(
        row["product"] for row in ROWS
    )
    program = json.loads(found.read(run, "program/program.json", folder).read_text())
    shown = {demo["product"] for demo in program["state"]["demos"]}
    assert shown == {json.loads(line)["product"] for line in rows["train"]}
    table = json.loads(found.read(run, "evaluation/rows.json", folder).read_text())
    assert "evaluation/rows.json" in run.data.tags["mlflow.loggedArtifacts"], "a table to MLflow"
    scored = pd.read_parquet(found.read(run, "evaluation/rows.parquet", folder))
    assert len(table["data"]) == len(scored) == 6
    assert set(scored.columns) <= set(table["columns"])
    assert scored["input_message"].tolist() == [json.loads(line)["message"] for line in rows["test"]]


def test_tracking_off_leaves_nothing_there_and_everything_here(compile_with, tmp_path):
    answer, found = compile_with(MLFLOW_ENABLED="false")
    assert found.experiment is None
    assert answer["run_id"] is None
    assert answer["evaluation_score"] == 1.0
    assert json.loads((tmp_path / answer["program_path"]).read_text())["state"]["demos"]


def test_experiment_name(compile_with):
    answer, found = compile_with(optimizer="none", MLFLOW_EXPERIMENT_NAME="团队 experiment")
    assert [run.info.run_id for run in found.runs] == [answer["run_id"]]


def test_log_traces_is_the_master_switch(compile_with):
    _, found = compile_with(MLFLOW_LOG_TRACES="false", MLFLOW_LOG_TRACES_FROM_COMPILE="true")
    assert found.traces(found.runs[0]) == []


SCORING = {"baseline", "validating_baseline", "validating", "evaluating"}


# With the defaults, false and true: above.
@pytest.mark.parametrize(
    ("from_compile", "from_eval", "phases"),
    [
        ("true", "false", {"optimising"}),
        ("true", "true", {"optimising", *SCORING}),
        ("false", "false", set()),
    ],
)
def test_traces_are_narrowed_to_compiling_and_to_scoring(compile_with, from_compile, from_eval, phases):
    _, found = compile_with(
        MLFLOW_LOG_TRACES_FROM_COMPILE=from_compile, MLFLOW_LOG_TRACES_FROM_EVAL=from_eval
    )
    assert found.phases(found.runs[0]) == phases


def test_no_run_for_a_compile_until_it_is_registered(compile_with, tmp_path, mlflow_address):
    settings = {"MLFLOW_LOG_COMPILES": "false", "MLFLOW_EXPERIMENT_NAME": f"later-{tmp_path.name}"}
    answer, found = compile_with(**settings)
    assert answer["run_id"] is None
    assert found.runs == []
    name = f"later {tmp_path.name}"
    asked = ("register", "--job", answer["job_id"], "--name", name, "--stage", "Production", "--why", "w")
    version = compile_with.command(*asked, **settings)
    assert version["stage"] == "Production"
    found = Found(mlflow_address, settings["MLFLOW_EXPERIMENT_NAME"])
    (run,) = found.runs
    assert (run.info.run_id, run.info.status) == (version["run_id"], "FINISHED")
    assert run.data.metrics["evaluation_score"] == answer["evaluation_score"]
    assert len(found.traces(run)) == 20
    assert "program/program.json" in found.artifacts(run)


def test_no_evaluation_tables_and_trial_scores(compile_with):
    _, found = compile_with(MLFLOW_LOG_EVALS="false")
    (run,) = found.runs
    assert not any(path.startswith("evaluation/") for path in found.artifacts(run))
    assert "trial_score" not in run.data.metrics
    assert run.data.metrics["evaluation_score"] == 1.0
