"""Titles and notes of jobs, and how jobs are looked for."""

from datetime import UTC, datetime

import pytest

from dspyui.domain.jobs import Job, RecordState, check_note, check_title
from dspyui.errors import BadRequestError
from dspyui.services.jobs import JobFilter

JOB = Job(
    id="20261123-224500-1a2b3c4d",
    title="Routing 意图",
    who="李雷",
    created_at=datetime(2026, 11, 23, tzinfo=UTC),
)


@pytest.mark.parametrize("title", ["x", " 最好的 🚀👩‍🚀 / \\ : * ", "x" * 200, "a\U0001fae9b"])
def test_a_title_may_hold_anything_that_can_be_read(title):
    assert check_title(title) == title.strip()


@pytest.mark.parametrize("title", ["", "   ", "x" * 201, "a\nb", "a\x00b", "a\ud800b", "a\u2028b"])
def test_a_title_that_cannot_be_is_said(title):
    with pytest.raises(BadRequestError) as caught:
        check_title(title)
    assert caught.value.code == "job.title"
    assert "200" in caught.value.text("zh_CN")


def test_a_note_keeps_its_lines():
    assert check_note(" **a**\r\n\tb 🚀\n\n") == "**a**\n\tb 🚀"
    for note, code in (("x" * 5001, "job.note_long"), ("a\x07", "job.note_characters")):
        with pytest.raises(BadRequestError) as caught:
            check_note(note)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("status", "text", "fits"),
    [
        (None, "", True),
        ("queued", "routing", True),
        ("done", "routing", False),
        (None, "意图 李雷 1A2B", True),
        (None, "routing nowhere", False),
    ],
)
def test_jobs_fit_by_state_and_by_all_words(status, text, fits):
    assert JobFilter(status=status, text=text).fits(JOB) is fits


def test_a_run_is_behind_once_its_job_is_renamed_or_noted_on():
    sent = RecordState(status="sent", run_id="r", title=JOB.title, note=None)
    assert not sent.is_behind(JOB)
    assert sent.is_behind(JOB.model_copy(update={"title": "x"}))
    assert sent.is_behind(JOB.model_copy(update={"note": ""}))
    assert not RecordState(status="pending", title="old").is_behind(JOB)
