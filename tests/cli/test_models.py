"""`dspyui models`: what it asks for and answers; the services behind it are those of a world in memory."""

from contextlib import contextmanager

import pytest

from dspyui.cli import models as command
from dspyui.domain.registry import RegisterRequest
from tests.api.world import World, program
from tests.run_world import Shelf, result

NAME = "抽取 1"
WHY = ("--why", "because")


@pytest.fixture
def world(settings, tmp_path, monkeypatch) -> World:
    """Two versions, the first better, behind the door that commands go through to MLflow."""
    made = World(settings)
    shelf = Shelf(made, tmp_path / "shelf")
    for scores in ([1.0] * 12, [0.0] * 12):
        request = RegisterRequest(run_id=shelf.put(result(scores)), name=NAME, who="t")
        made.registry.register(request, program(), tags={}, input_example={})

    @contextmanager
    def opened(_settings):
        yield made.services

    monkeypatch.setattr(command, "opened_for_mlflow", opened)
    return made


def test_models_are_listed_and_shown(dspyui, world):
    world.registry.put("other", file="data/model.pkl")
    said = dspyui("models", "list", "--name", "抽")
    assert (said.code, said.out) == (0, f"{NAME}: newest 2, Staging –, Production –\n")
    document = dspyui("models", "list", "--size", "1", "--json").document
    assert document["next_token"]
    rest = dspyui("models", "list", "--size", "1", "--page", document["next_token"], "--json").document
    assert {m["name"] for m in (*document["models"], *rest["models"])} == {NAME, "other"}
    shown = dspyui("models", "show", "other")
    assert "data/model.pkl" in shown.out
    assert "1: None, score –" in shown.out
    found = dspyui("models", "show", "other", "--json").document
    assert "data/model.pkl" in found["versions"][0]["unloadable"]
    assert dspyui("models", "list", "--name", "none").out == "No models.\n"


def test_the_gate_stands_before_a_promotion_here_too(dspyui, world):
    assert dspyui("models", "promote", NAME, "1", *WHY, "--from", "0").code == 0
    said = dspyui("models", "promote", NAME, "2", *WHY, "--from", "0", "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "registry.other_holder")
    said = dspyui("models", "promote", NAME, "2", *WHY, "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "gate.confirm")
    assert "Worse than version 1" in said.err
    assert "add --confirm" in said.err
    said = dspyui("models", "promote", NAME, "2", *WHY, "--confirm", NAME, "--json")
    assert (said.code, said.document["stage"]) == (0, "Production")
    back = dspyui("models", "rollback", NAME, *WHY, "--from", "2")
    assert back.out.startswith(f"Registered model '{NAME}', version 1: Production.\n")
    again = dspyui("models", "rollback", NAME, *WHY, "--from", "2", "--json")
    assert (again.code, again.document["error"]["code"]) == (2, "registry.no_holder")
    told = dspyui("models", "show", NAME, "2", "--lang", "zh_CN").out
    assert "Production → Archived。由版本 1 取代" in told
    assert "差于处于 Production 的版本 1" in told
    assert f"已输入“{NAME}”确认。" in told
    history = world.registry.get_version(NAME, 1).history
    assert [(change.kind, change.why) for change in history][-1] == ("rollback", "because")
    moved = dspyui("models", "promote", NAME, "2", "--stage", "staging", *WHY, "--json").document
    assert (moved["stage"], moved["aliases"]) == ("Staging", ["staging"])


def test_aliases_labels_and_deletions(dspyui, world):
    assert dspyui("models", "alias", NAME, "champion", "2").code == 0
    assert world.registry.get_by_alias(NAME, "champion").version == 2
    kept = dspyui("models", "delete", NAME, "2", "--yes", "--json")
    assert kept.document["error"]["code"] == "registry.has_alias"
    assert dspyui("models", "alias", NAME, "champion", "--remove", "--json").document["version"] is None
    labels = ("--description", "d", "--tag", "team=a=b", "--tag", "x=", "--untag", "y")
    assert dspyui("models", "describe", NAME, "2", *labels).code == 0
    found = world.registry.get_version(NAME, 2)
    assert (found.description, found.tags) == ("d", {"dspyui.registered_by": "t", "team": "a=b", "x": ""})
    assert dspyui("models", "describe", NAME, "--description", "whole").code == 0
    assert world.registry.get_model(NAME).description == "whole"
    assert dspyui("models", "delete", NAME, "2", "--yes").code == 0
    document = dspyui("models", "delete", NAME, "--yes", "--json").document
    assert document == {"deleted": NAME, "version": None}
    assert dspyui("models", "show", NAME, "--json").document["error"]["code"] == "registry.no_model"


def test_on_a_terminal_it_is_asked_before_deleting(dspyui, world, answers):
    answers("\n")
    said = dspyui("models", "delete", NAME, "2")
    assert said.code == 130
    assert "Version 2 of" in said.err
    assert world.registry.get_version(NAME, 2)
    answers("y\n")
    assert dspyui("models", "delete", NAME).code == 0
    assert world.registry.search_versions(NAME) == ()


def test_that_tracking_is_off_is_said_where_it_was_asked_for(dspyui, world, monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLED", "false")
    assert "MLFLOW_ENABLED" in dspyui("models", "list", "--mlflow").err


def test_what_is_not_there_leads_to_commands(dspyui, world):
    said = dspyui("models", "show", NAME, "99")
    assert said.code == 2
    assert "`dspyui models list`" in said.err
    assert "page" not in said.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("delete", NAME), "cli.yes_needed"),
        (("delete", NAME, "1"), "cli.yes_needed"),
        (("alias", NAME, "champion"), "cli.models_alias"),
        (("alias", NAME, "champion", "1", "--remove"), "cli.models_alias"),
        (("describe", NAME), "cli.models_describe"),
        (("describe", NAME, "--tag", "x"), "cli.models_tag"),
        (("list", "--size", "0"), "cli.models_page"),
        (("promote", NAME, "1"), "cli.usage"),
        (("promote", NAME, "x", *WHY), "cli.usage"),
        (("promote", NAME, "1", "--why", " "), "registry.no_why"),
        (("promote", NAME, "1", "--stage", "Best", *WHY), "cli.stage"),
        (("rollback", NAME, *WHY), "registry.no_previous"),
        (("alias", NAME, "v1", "1"), "alias.version"),
    ],
)
@pytest.mark.parametrize("language", ["en_US", "zh_CN"])
def test_what_cannot_be_is_told(dspyui, world, arguments, code, language):
    said = dspyui("models", *arguments, "--json", "--lang", language)
    assert (said.code, said.document["error"]["code"]) == (2, code)
    assert said.err.startswith("错误：" if language == "zh_CN" else "error: ")
    assert len(world.registry.search_versions(NAME)) == 2
