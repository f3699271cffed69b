"""`dspyui feedback` over traces in memory."""

import json
from contextlib import contextmanager

import pytest

from dspyui.bootstrap import system_user
from dspyui.cli import feedback as command
from dspyui.domain.feedback import OUTPUTS_TAG, Feedback
from tests.api.world import World

FIELDS = [{"name": "product"}, {"name": "count", "type": "int"}]


@pytest.fixture
def world(settings, monkeypatch) -> World:
    made = World(settings)

    @contextmanager
    def opened(_settings):
        yield made.services

    monkeypatch.setattr(command, "opened_for_mlflow", opened)
    return made


@pytest.fixture
def trace_id(world):
    return world.feedback.call({OUTPUTS_TAG: json.dumps(FIELDS)})


def test_an_opinion_is_kept_changed_and_shown(dspyui, world, trace_id):
    said = dspyui(
        "feedback",
        trace_id,
        "--down",
        "--comment",
        "no lamp",
        "--correct",
        "product=a=b",
        "--correct",
        "count=3",
    )
    assert (said.code, said.out) == (
        0,
        "Wrong. no lamp\nproduct should have been: a=b\ncount should have been: 3\n",
    )
    held = world.services.feedback.get(trace_id, who=system_user())
    assert held == Feedback(thumbs_up=False, comment="no lamp", correction={"product": "a=b", "count": 3})
    assert dspyui("feedback", trace_id, "--up", "--json").document["thumbs_up"] is True
    shown = dspyui("feedback", trace_id, "--json").document
    assert (shown["trace_id"], shown["who"], shown["thumbs_up"]) == (trace_id, system_user(), True)
    assert dspyui("feedback", trace_id, "--lang", "zh_CN").out.startswith("正确。")
    other = world.feedback.call({})
    world.services.feedback.send()
    assert dspyui("feedback", other).out == "You have said nothing about this call yet.\n"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (["--up", "--down"], "cli.feedback_both"),
        (["--comment", "why"], "feedback.comment_alone"),
        (["--correct", "lamp"], "cli.feedback_correct"),
        (["--correct", "colour=red"], "feedback.field"),
        (["--correct", "count=many"], "value.type"),
    ],
)
def test_what_makes_no_sense_is_refused(dspyui, trace_id, said, code):
    refused = dspyui("feedback", trace_id, *said, "--json")
    assert (refused.code, refused.document["error"]["code"]) == (2, code)


def test_an_unknown_trace(dspyui, world):
    refused = dspyui("feedback", "tr-" + "0" * 32, "--up", "--json")
    assert (refused.code, refused.document["error"]["code"]) == (2, "feedback.no_trace")
