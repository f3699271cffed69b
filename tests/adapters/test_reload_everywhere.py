"""Every module with every optimizer: compiled, kept as a document, and loaded in a fresh process it asks the same.

All of them are compiled once and loaded by one process, which knows nothing but their documents and an empty cache.
"""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from dspyui.domain.optimizers import OPTIMIZERS, OptimizerSpec
from dspyui.domain.programs import MODULES
from tests.adapters.test_optimizers_run import EASY, World
from tests.fake_openai import FakeOpenAI
from tests.learner import learn, rows
from tests.reload_child import answers

ROOT = Path(__file__).parents[2]
COMBINATIONS = list(product(MODULES, [kind for kind in OPTIMIZERS if kind != "none"]))
TRAIN, VALIDATION = rows(4), rows(2, start=20)
# One that an untaught model gets right and one that it does not.
INPUTS = [{"message": row["message"]} for row in rows(2, start=40)]
RIGHT = [row["product"] for row in rows(2, start=40)]
# Enough to find something in so few rows, and no more.
LEAST = {
    "bootstrap_few_shot_with_random_search": {"num_candidate_programs": 1},
    "copro": {"breadth": 2, "depth": 1},
    "miprov2": {"auto": None, "num_candidates": 2, "num_trials": 2, "minibatch": False},
    "simba": {"bsize": 4, "max_steps": 1, "num_candidates": 2},
    "gepa": {"max_metric_calls": 12},
    "infer_rules": {"num_candidates": 1},
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Of each combination: what it answers where it was compiled, what in a fresh process, and its document."""
    folder = tmp_path_factory.mktemp("everywhere")
    with FakeOpenAI(learn) as server:
        world = World(server, folder)
        here, documents = [], []
        for module, optimizer in COMBINATIONS:
            spec = world.spec(OptimizerSpec(kind=optimizer, params=LEAST.get(optimizer, {})), module, EASY)
            live = world.optimise(spec, train=TRAIN, validation=VALIDATION)
            here.append(answers(world.engine, live, INPUTS))
            documents.append(world.dump(live, spec).to_json())
        asked = {"cache": str(folder / "empty"), "programs": documents, "inputs": INPUTS}
        done = subprocess.run(
            [sys.executable, "-m", "tests.reload_child"],
            input=json.dumps(asked), capture_output=True, text=True, cwd=ROOT, timeout=120, check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    there = json.loads(done.stdout)
    return {names: found for names, *found in zip(COMBINATIONS, here, there, documents, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize(("module", "optimizer"), COMBINATIONS)
def test_it_asks_and_answers_the_same_in_a_fresh_process(outcomes, module, optimizer):
    here, there, document = outcomes[module, optimizer]
    assert there == here
    assert [outputs["product"] for outputs, _calls in here] == RIGHT, "it has learnt"
    assert all(calls for _outputs, calls in here)
    spec = json.loads(document)["spec"]
    assert spec["module"]["kind"] == module
