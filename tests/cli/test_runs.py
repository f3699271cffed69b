"""`dspyui runs` over Runs in memory, as finished jobs leave them."""

from contextlib import contextmanager

import pytest

from dspyui.cli import runs as command
from dspyui.domain.registry import RegisterRequest
from tests.api.world import World, program
from tests.run_world import Shelf, result


@pytest.fixture
def world(settings, monkeypatch) -> World:
    made = World(settings)

    @contextmanager
    def opened(_settings):
        yield made.services

    monkeypatch.setattr(command, "opened_for_mlflow", opened)
    return made


@pytest.fixture
def shelf(world, tmp_path) -> Shelf:
    return Shelf(world, tmp_path / "shelf")


def test_runs_are_listed_filtered_and_sorted(dspyui, world, shelf):
    low, high = shelf.put(result([1.0, 0.0]), name="low"), shelf.put(result([1.0, 1.0]), name="high")
    batch = shelf.put_batch()
    request = RegisterRequest(run_id=high, name="抽取", who="t")
    world.registry.register(request, program(), tags={}, input_example={})
    said = dspyui("runs", "list", "--kind", "compile", "--sort", "score")
    assert (said.code, said.out) == (
        0,
        f"{high} high: Compile, FINISHED, score 1.00 抽取/1\n{low} low: Compile, FINISHED, score 0.50\n",
    )
    assert [
        run["run_id"] for run in dspyui("runs", "list", "--kind", "batch", "--json").document["runs"]
    ] == [batch]
    first = dspyui("runs", "list", "--size", "2", "--up", "--json").document
    assert [run["run_id"] for run in first["runs"]] == [low, high]
    rest = dspyui(
        "runs", "list", "--size", "2", "--up", "--page", first["next_page_token"], "--json"
    ).document
    assert ([run["run_id"] for run in rest["runs"]], rest["next_page_token"]) == ([batch], None)
    assert f"--page {first['next_page_token']}" in dspyui("runs", "list", "--size", "2").out
    assert dspyui("runs", "list", "--name", "nobody").out == "No Runs.\n"
    shelf.library.delete(low)
    assert [run["run_id"] for run in dspyui("runs", "list", "--deleted", "--json").document["runs"]] == [low]


@pytest.mark.parametrize("wrong", [["--kind", "x"], ["--state", "done"], ["--sort", "x"], ["--size", "0"]])
def test_what_cannot_be_asked_for_is_said(dspyui, world, wrong):
    said = dspyui("runs", "list", *wrong, "--json")
    assert said.code == 2
    assert wrong[0].removeprefix("--") in said.err


def test_one_run_is_shown(dspyui, shelf):
    made, batch = shelf.put(result([1.0, 0.0]), name="low"), shelf.put_batch()
    out = dspyui("runs", "show", made).out
    for part in ("low: Compile", "module: Predict", "evaluation_score: 0.5", shelf.library.get(made).url):
        assert part in out
    document = dspyui("runs", "show", made, "--json").document
    assert (document["run"]["kind"], document["spec"]["optimizer"]["kind"]) == ("compile", "labeled_few_shot")
    assert "批量推理，FINISHED，得分 0.80" in dspyui("runs", "show", batch, "--lang", "zh_CN").out
    unknown = dspyui("runs", "show", "none", "--json")
    assert (unknown.code, unknown.document["error"]["code"]) == (2, "run.unknown")
