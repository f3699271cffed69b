"""`dspyui compile --estimate`: what a compile would ask and cost, told without compiling."""

import json
from pathlib import Path

import pytest

from dspyui.domain.optimizers import OPTIMIZERS

SPEC = {
    "program": {
        "name": "p",
        "signature": {"inputs": [{"name": "message"}], "outputs": [{"name": "product"}]},
    },
    "optimizer": {"kind": "labeled_few_shot"},
    "data": {"rows": [{"message": f"m{n}", "product": f"p{n}"} for n in range(20)]},
}


@pytest.fixture
def spec(tmp_path: Path):
    def write(**changes) -> str:
        path = tmp_path / "spec.json"
        path.write_text(json.dumps({**SPEC, **changes}), encoding="utf-8")
        return str(path)

    return write


def test_it_is_told_and_nothing_is_compiled(dspyui, spec, tmp_path):
    said = dspyui("compile", spec(), "--estimate", "--json")
    assert said.code == 0
    # 6 test and 4 validation rows, before and after.
    assert said.document["lm_calls_at_most"] == 20
    assert said.document["cost_about_at_most"] == 0.0
    assert not list(tmp_path.rglob("job.json"))


def test_it_is_said_for_people(dspyui, spec):
    unknown = spec(lms={"task": {"model": "openai/no-such-model"}})
    said = dspyui("compile", unknown, "--estimate", "--lang", "en_US")
    assert said.code == 0
    first, second = said.out.splitlines()
    assert first.startswith("At most 20 LM calls, about ")
    assert second == "Cost: unknown, no price is listed for a model"


def test_rows_the_optimizer_cannot_run_on_are_told(dspyui, spec):
    said = dspyui("compile", spec(optimizer={"kind": "simba"}), "--estimate", "--json")
    assert said.code == 2
    assert said.document["error"]["code"] == "optimizer.bsize"


@pytest.mark.parametrize(
    ("language", "small", "none"),
    [
        (
            "en_US",
            "works best with 50 training rows or more; the split leaves 10.",
            "There are no validation rows",
        ),
        ("zh_CN", "最好有 50 行以上的训练数据，而划分后只有 10 行。", "没有验证集"),
    ],
)
def test_data_smaller_than_the_optimizer_wants_is_said_and_keeps_nobody(dspyui, spec, language, small, none):
    wanted = OPTIMIZERS["bootstrap_few_shot_with_random_search"].wants_train
    path = spec(optimizer={"kind": "bootstrap_few_shot_with_random_search"})
    said = dspyui("compile", path, "--estimate", "--json", "--lang", language)
    assert (said.code, wanted) == (0, 50)
    told = {warning["code"]: warning["message"] for warning in said.document["warnings"]}
    assert small in told["optimizer_warning.train"]
    assert "data_notice.test_small" in told
    assert all(message in said.err.splitlines() for message in told.values())
    data = {**SPEC["data"], "split": {"train": 0.7, "validation": 0, "test": 0.3}}
    said = dspyui("compile", spec(optimizer={"kind": "miprov2"}, data=data), "--estimate", "--lang", language)
    assert (said.code, none in said.err) == (0, True)


def test_data_that_is_large_enough_is_passed_over(dspyui, spec):
    rows = [{"message": f"m{n}", "product": f"p{n}"} for n in range(100)]
    said = dspyui("compile", spec(data={"rows": rows}), "--estimate", "--json")
    assert (said.document["warnings"], said.err) == ([], "")
