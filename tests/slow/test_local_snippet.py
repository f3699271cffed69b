"""The lines shown beside a program that was compiled on the bundled model, run as a person would run them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dspy
import pytest

from dspyui.adapters.dspy_engine.modules import Tools, build, dump_state
from dspyui.domain.lms import LMRoles, LMSpec
from dspyui.services.examples import demo_spec
from dspyui.ui.snippet import program_snippet

pytestmark = pytest.mark.slow

DEMOS = (
    ("My desk lamp arrived with a cracked shade.", "desk lamp"),
    ("The yoga mat smells of rubber, please advise.", "yoga mat"),
    ("Hello, I want to return the rain jacket I got on Monday.", "rain jacket"),
    ("Is it normal that the coffee grinder gets hot?", "coffee grinder"),
)


class ScoreToolsOfNothing:
    """No metric is asked here."""


def test_the_lines_start_the_bundled_model_and_answer(tmp_path: Path):
    lms = LMRoles(task=LMSpec(temperature=0, max_tokens=40))
    spec = demo_spec().model_copy(update={"lms": lms})
    module = build(spec.program, Tools(ScoreToolsOfNothing()))  # type: ignore[arg-type]
    for predictor in module.predictors():
        predictor.demos = [dspy.Example(message=message, product=product) for message, product in DEMOS]
    document = json.dumps({"state": dump_state(module)})
    (tmp_path / f"{spec.program.name}.json").write_text(document, encoding="utf-8")
    lines = program_snippet(spec, {"message": "The hiking boots came in the wrong size, can I swap them?"})
    assert lines is not None
    assert "gpt" not in lines
    (tmp_path / "use.py").write_text(lines, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "use.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "hiking boots" in ended.stdout
