"""Metrics when a job is made: people's own only where they may run, expected values that can be compared."""

import pytest

from dspyui.errors import BadRequestError, NotFoundError
from dspyui.settings import Settings
from tests.api.world import World

OWN = {"kind": "custom", "params": {"name": "mine"}}
REWARDED = {
    "signature": {"inputs": [{"name": "message"}], "outputs": [{"name": "product"}]},
    "module": {"kind": "best_of_n", "reward": OWN},
}


def world(tmp_path, **settings):
    made = World(Settings.load(env_file=tmp_path / "none", environ={}, home=tmp_path / "home", **settings))
    folder = tmp_path / "home" / "metrics"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text("def metric(example, prediction): return 1")
    return made


@pytest.mark.parametrize(
    ("settings", "may"),
    [
        ({}, True),
        ({"host": "localhost"}, True),
        ({"host": "::1"}, True),
        ({"host": "0.0.0.0"}, False),  # noqa: S104 - what others can reach
        ({"host": "192.0.2.1"}, False),
        ({"host": "0.0.0.0", "allow_code": True}, True),  # noqa: S104 - what others can reach
    ],
)
def test_ones_own_metric_runs_only_where_others_cannot_reach_it_or_it_is_allowed(tmp_path, settings, may):
    made = world(tmp_path, **settings)
    assert list(made.services.metrics.names()) == (["mine"] if may else [])
    if may:
        assert made.submitted(metric=OWN)
        assert made.submitted(program=REWARDED)
        return
    for asked in ({"metric": OWN}, {"program": REWARDED}):
        with pytest.raises(BadRequestError) as caught:
            made.submitted(**asked)
        assert caught.value.code == "metric.custom_forbidden"
        assert made.jobs.search() == []
        for language in ("en_US", "zh_CN"):
            assert "DSPYUI_ALLOW_CODE" in caught.value.text(language)


@pytest.mark.parametrize("name", ["other", "../mine", "mine.py"])
def test_a_metric_that_is_not_there_is_refused_and_what_is_there_is_told(tmp_path, name):
    made = world(tmp_path)
    with pytest.raises(NotFoundError) as caught:
        made.submitted(metric={"kind": "custom", "params": {"name": name}})
    assert caught.value.code == "metric.custom_missing"
    assert "mine" in caught.value.text("en_US").split(":")[-1]
    assert made.jobs.search() == []


@pytest.mark.parametrize(
    ("kind", "code"), [("numeric", "metric.expected_number"), ("json_accuracy", "metric.expected_json")]
)
def test_expected_values_that_cannot_be_compared_are_refused_before_a_job_is_made(tmp_path, kind, code):
    made = world(tmp_path)
    rows = [{"message": f"m{n}", "product": "3" if n != 7 else "three"} for n in range(12)]
    with pytest.raises(BadRequestError) as caught:
        made.submitted(metric={"kind": kind}, data={"rows": rows})
    assert caught.value.code == code
    assert "8" in caught.value.text("zh_CN")
    assert made.jobs.search() == []
    rows[7]["product"] = "7"
    assert made.submitted(metric={"kind": kind}, data={"rows": rows})
