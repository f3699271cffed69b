"""What needs an embedder, compiled on a machine that has nothing: the bundled model answers and makes the vectors."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from mlflow import MlflowClient

from dspyui.adapters.files.tables import FileTableReader
from dspyui.services.examples import demo_spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOCAL = {"model": "local/smollm2-135m"}
# The least that is gained, and what is asked for.
CHANGES = {
    "knn": (0.3, {"optimizer": {"kind": "knn_few_shot", "params": {"k": 4, "max_bootstrapped_demos": 0}}}),
    # A sentence with the product in it is already near the product alone.
    "similarity": (
        0.05,
        {"optimizer": {"kind": "labeled_few_shot", "params": {"k": 6}}, "metric": {"kind": "similarity"}},
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_the_bundled_embedder_serves_a_compile(tmp_path, mlflow_address, kind):
    spec = demo_spec().model_dump(mode="json", exclude_none=True)
    spec["lms"]["embedder"] = LOCAL
    table = FileTableReader(max_bytes=10**6).read_path(spec["data"]["path"])
    split = {"train": 0.7, "validation": 0.0, "test": 0.3, "seed": 0}
    spec["data"] = {"rows": list(table.rows)[:40], "split": split}
    least, changes = CHANGES[kind]
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({**spec, **changes}))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DSPYUI_HOME": str(tmp_path / "data"),
        "MLFLOW_TRACKING_URI": mlflow_address,
        "MLFLOW_EXPERIMENT_NAME": tmp_path.name,
    }
    done = subprocess.run(
        [sys.executable, "-m", "dspyui", "compile", "spec.yaml", "--json"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["status"] == "done"
    assert answer["score_improvement"] > least
    # Every training row and every test row, or every expected and predicted value; each text once.
    assert answer["embedding_calls"] > 1
    assert answer["embedding_tokens"] > answer["embedding_calls"]
    assert answer["cost"] == 0.0
    run = MlflowClient(tracking_uri=mlflow_address).get_run(answer["run_id"])
    assert run.data.metrics["embedding_calls"] == answer["embedding_calls"]
    assert run.data.metrics["embedding_tokens"] == answer["embedding_tokens"]
    assert run.data.params["lm.embedder.model"] == LOCAL["model"]
    program = json.loads((tmp_path / "data/jobs" / answer["job_id"] / "program.json").read_text())
    assert (program["neighbours"] is not None) == (kind == "knn")
