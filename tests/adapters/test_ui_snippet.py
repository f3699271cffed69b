"""The five lines shown beside a downloaded program, run with DSPy alone."""

import contextlib
import io
import json
import subprocess
import sys
import warnings
from pathlib import Path

import dspy
import pytest
from dspy.utils import DummyLM

from dspyui.adapters.dspy_engine.modules import Tools, build, dump_state
from dspyui.domain.lms import LMRoles
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import ModuleSpec, file_name
from dspyui.services.documents import spec_of
from dspyui.ui.snippet import program_snippet
from tests.fake_openai import FakeOpenAI, chat

REWARD = MetricSpec(kind="regex", params={"pattern": "x"})
TRIAGE = spec_of(
    {
        "program": {
            "name": "Ticket/triage: it's",
            "signature": {
                "inputs": [{"name": "text"}, {"name": "votes", "type": "int"}],
                "outputs": [
                    {"name": "kind", "type": "choice", "choices": ["bug", "it's fine"]},
                    {"name": "tags", "type": "list[str]"},
                ],
            },
            "module": {"kind": "chain_of_thought"},
        },
        "lms": {"task": {"model": "openai/gpt-4o-mini", "temperature": 0.5}},
        "data": {"rows": [{"text": "x", "votes": 1, "kind": "bug", "tags": "[]"}]},
    }
)
COMPARISON = TRIAGE.model_copy(
    update={
        "program": TRIAGE.program.model_copy(
            update={"module": ModuleSpec(kind="multi_chain_comparison", params={"M": 2, "temperature": 0.5})}
        )
    }
)
CASES = (
    (TRIAGE, {"text": "x", "votes": 2}, {"reasoning": "so", "kind": "it's fine", "tags": '["a"]'}),
    (
        COMPARISON,
        {"text": "x", "votes": 2},
        {"rationale": "both", "reasoning": "so", "kind": "it's fine", "tags": '["a"]'},
    ),
)


class ScoreToolsOfNothing:
    """No metric is asked here."""


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": OptimizerSpec(kind="knn_few_shot")},
        {"program": TRIAGE.program.model_copy(update={"module": ModuleSpec(kind="refine", reward=REWARD)})},
    ],
)
def test_what_dspy_alone_cannot_run_gets_no_lines(changes):
    assert program_snippet(TRIAGE.model_copy(update=changes), {}) is None


@pytest.mark.parametrize(("spec", "example", "reply"), CASES)
def test_the_lines_load_the_program_and_answer(spec, example, reply, monkeypatch):
    module = build(spec.program, Tools(ScoreToolsOfNothing()))
    for predictor in module.predictors():
        predictor.demos = [dspy.Example(**example, **reply)]
    document = json.dumps({"state": dump_state(module)})
    Path(file_name(spec.program.name, ".json")).write_text(document, encoding="utf-8")
    asked = DummyLM([reply] * 3)
    monkeypatch.setattr(dspy, "LM", lambda *_args, **_settings: asked)
    lines = program_snippet(spec, example)
    assert len(lines.splitlines()) == (11 if spec is COMPARISON else 5)

    said = io.StringIO()
    # dspy.configure belongs to one thread for good, so the test gives the same settings in a context.
    monkeypatch.setattr(dspy, "configure", lambda **settings: opened.enter_context(dspy.context(**settings)))
    with contextlib.ExitStack() as opened, contextlib.redirect_stdout(said), warnings.catch_warnings():
        # Of DSPy's MultiChainComparison, about its own fields.
        warnings.filterwarnings("ignore", "The 'prefix' argument", DeprecationWarning)
        exec(lines, {})  # noqa: S102 - our own lines
    assert next(iter(reply.values())) in said.getvalue()
    assert len(asked.history) == (3 if spec is COMPARISON else 1)
    assert asked.history[-1]["messages"][1]["role"] == "user"
    assert len(asked.history[-1]["messages"]) > 3, "the demos are in the prompt"


@pytest.mark.parametrize("variable", [None, "MY_SERVER_KEY"])
def test_the_lines_run_in_a_process_of_their_own_on_the_model_of_the_compile(tmp_path, variable):
    with FakeOpenAI(lambda _messages: chat(reasoning="so", kind="it's fine", tags='["a"]')) as server:
        lm = {"model": "openai/of-ours", "api_base": server.base_url, "max_tokens": 77}
        lms = {"task": lm if variable is None else {**lm, "api_key_env": variable}}
        spec = TRIAGE.model_copy(update={"lms": LMRoles.model_validate(lms)})
        module = build(spec.program, Tools(ScoreToolsOfNothing()))
        document = json.dumps({"state": dump_state(module)})
        (tmp_path / file_name(spec.program.name, ".json")).write_text(document, encoding="utf-8")
        (tmp_path / "use.py").write_text(program_snippet(spec, {"text": "x", "votes": 2}), encoding="utf-8")
        keys = {"OPENAI_API_KEY": "not-for-this-server", "MY_SERVER_KEY": "mine"}
        ended = subprocess.run(
            [sys.executable, "use.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
            env={"PATH": "", "HOME": str(tmp_path), "LITELLM_LOCAL_MODEL_COST_MAP": "True", **keys},
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "it's fine" in ended.stdout
    (asked,) = server.requests
    assert (asked["model"], asked["max_completion_tokens"]) == ("of-ours", 77)
    assert server.keys == [f"Bearer {'none' if variable is None else 'mine'}"]
