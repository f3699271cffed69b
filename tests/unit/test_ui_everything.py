"""One Run that uses every new thing at once, loaded into the form: what is compiled again is what was compiled."""

import json
from pathlib import Path

import pytest
from nicegui import ui
from nicegui.testing import User

from dspyui.domain.compiles import CompileSpec
from dspyui.domain.runs import RunInfo
from dspyui.services.documents import dump_spec, parse_spec, spec_of
from dspyui.ui.draft_sources import draft_from_store, draft_of
from tests.api.world import MLFLOW, T0, World
from tests.pages import element, sees, until, words
from tests.unit.test_ui_drafts import parsed

LM = {"api_base": "http://127.0.0.1:9/v1", "timeout": 60, "num_retries": 1}
OPTIMIZERS = {
    "knn_few_shot": {"k": 5, "max_bootstrapped_demos": 2, "max_labeled_demos": 7, "metric_threshold": 0.25},
    "miprov2": {
        "auto": None, "num_candidates": 4, "num_trials": 6, "minibatch": True, "minibatch_size": 3,
        "max_bootstrapped_demos": 1, "view_data_batch_size": 5, "init_temperature": 0.5, "tip_aware_proposer": False,
    },
}  # fmt: skip


def everything(folder: Path, optimizer: str) -> CompileSpec:
    """Roles, weights, parameters, a reward, a judge, mapped columns, a column of splits, repeats, errors allowed."""
    lines = [
        f"a text {n},bug {n},{n},{'test' if n % 3 == 0 else 'dev' if n % 3 == 1 else 'train'}"
        for n in range(30)
    ]
    folder.mkdir(exist_ok=True)
    file = folder / "tickets.csv"
    file.write_text("\n".join(["The Text,label,Votes,part", *lines, ""]), encoding="utf-8")
    return spec_of(
        {
            "program": {
                "name": "所有 of it",
                "signature": {
                    "instructions": "两行\nof it.",
                    "inputs": [{"name": "text", "description": "what was written"}],
                    "outputs": [{"name": "kind"}, {"name": "votes", "type": "int"}],
                },
                "module": {
                    "kind": "refine",
                    "params": {"module": "predict", "N": 4, "threshold": 0.5, "fail_count": 2},
                    "reward": {
                        "kind": "regex", "fields": ["kind"], "weights": {"kind": 2.0},
                        "params": {"pattern": "b.g", "ignore_case": True},
                    },
                },
            },
            "lms": {
                "task": {"model": "openai/task", "temperature": 0.5, "max_tokens": 99, "cache": False, **LM},
                "prompt": {"model": "openai/prompt", "temperature": 1.0, **LM},
                "teacher": {"model": "openai/teacher", **LM},
                "judge": {"model": "openai/judge", "max_tokens": 9, **LM},
                "embedder": {"model": "openai/vectors", "api_base": LM["api_base"]},
            },
            "optimizer": {"kind": optimizer, "params": OPTIMIZERS[optimizer]},
            "metric": {
                "kind": "llm_judge", "weights": {"kind": 3.0, "votes": 0.5},
                "params": {"rubric": "对吗？\nIs it?", "lowest": 1.0, "highest": 5.0, "use_expected": False},
            },
            "data": {
                "path": str(file), "columns": {"text": "The Text", "kind": "label", "votes": "Votes"},
                "split_column": "part", "allow_shared": True,
            },
            "seed": 11, "threads": 3, "repeats": 2, "max_errors": 7,
        }
    )  # fmt: skip


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_draft_of_it_says_the_same(tmp_path, optimizer):
    asked = everything(tmp_path / "data", optimizer)
    # A spec with anything left at its default would hide that it is lost.
    for part, named in (
        (asked, {"digests"}),
        (asked.data, {"upload", "rows", "split", "validation", "test"}),
    ):
        left = {name for name in type(part).model_fields if name not in part.model_fields_set}
        assert left == named
    for draft in (draft_of(asked), draft_from_store(json.loads(json.dumps(draft_of(asked).to_store())))):
        assert parsed(draft.to_spec()) == parsed(asked)
    assert parse_spec(dump_spec(asked)) == asked


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
async def test_its_run_is_loaded_into_the_form_and_compiled_again(
    user: User,
    world: World,
    tmp_path: Path,
    optimizer: str,
):
    asked = everything(tmp_path / "data", optimizer)
    job_id = world.services.jobs.submit(asked, who="tester").id
    recorded = world.jobs.spec(job_id).portable()
    assert str(tmp_path) not in dump_spec(recorded)
    world.runs.runs["r1"] = RunInfo(
        run_id="r1", experiment_id="1", url=f"{MLFLOW}/#/r", name="r", status="FINISHED", job_id=job_id,
        started_at=T0, ended_at=T0, params={}, metrics={}, tags={},
    )  # fmt: skip
    world.runs.specs["r1"] = dump_spec(recorded)
    await user.open("/?run=r1")
    await until(sees(user, marker="form-ready"))
    assert "Filled in from Run r1." in words(user, "form-notice")
    user.find(marker="compile").click()
    await until(lambda: len(world.queue.submitted) == 2)
    again = world.jobs.spec(world.queue.submitted[1])
    assert parsed(again) == parsed(world.jobs.spec(job_id))
    assert again.digests == recorded.digests
    assert world.jobs.rows(world.queue.submitted[1]) == world.jobs.rows(job_id)
    assert world.jobs.parts(world.queue.submitted[1]) == world.jobs.parts(job_id)


@pytest.mark.parametrize(("marker", "choice"), [("optimizer", "knn_few_shot"), ("metric", "similarity")])
async def test_what_needs_an_embedder_starts_from_the_form_with_the_bundled_one(
    user: User,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    marker: str,
    choice: str,
):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    element(user, marker).set_value(choice)  # type: ignore[attr-defined]
    # Without an embedder DSPy cannot run it: the form says so, and nothing starts.
    await until(sees(user, marker="form-problem-0"))
    assert "embed" in words(user, "form-problem-0")
    shown: list[str] = []
    # What the browser is told once the form has said no: to bring the problem into view.
    monkeypatch.setattr(ui, "run_javascript", shown.append)
    user.find(marker="compile").click()
    await until(lambda: any("form-problem-0" in code for code in shown))
    element(user, "lm-embedder-own").set_value(True)  # type: ignore[attr-defined]
    await until(sees(user, marker="lm-embedder-model"))
    user.find(marker="lm-embedder-model").clear().type("local/smollm2-135m")
    await until(sees(user, marker="form-ready"))
    assert world.queue.submitted == []
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    spec = world.jobs.spec(world.queue.submitted[0])
    assert choice in {spec.optimizer.kind, spec.metric.kind}
    assert spec.lms.embedder is not None
    assert spec.lms.embedder.is_local
