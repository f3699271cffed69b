"""The test of a model against the bundled one, as a person would run it."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def test_the_bundled_model_answers(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "dspyui", "lm", "test", "local/smollm2-135m", "--json"],
        env={"PATH": os.environ["PATH"], "DSPYUI_HOME": str(tmp_path / "data")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert answer["reply"]
    assert answer["cost"] == 0.0
    assert 0 < answer["output_tokens"] <= 16
