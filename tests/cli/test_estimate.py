"""`dspyui compile --estimate`: what a compile would ask and cost, told without compiling."""

import json
from pathlib import Path

import pytest

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
