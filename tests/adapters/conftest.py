"""What tests of the engine share."""

from types import SimpleNamespace

import pytest
from dspy.clients import execution


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client of language models would have slept, in seconds; it does not."""
    slept: list[float] = []
    monkeypatch.setattr(execution, "time", SimpleNamespace(sleep=slept.append))
    return slept
