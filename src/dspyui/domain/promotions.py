"""May a version go to Production, and which one was there before."""

from collections.abc import Sequence

from dspyui.domain.base import Fault, Frozen
from dspyui.domain.comparisons import PairedTest
from dspyui.domain.registry import GateRecord, GateWord, ModelVersion, StageChange
from dspyui.settings import PromotionGate

# What has to be confirmed, and is refused where the gate requires better.
HELD: frozenset[GateWord] = frozenset({"worse", "untested"})


class GateReport(Frozen):
    """What comparing a candidate with the version in Production came to.

    `result` says it in words. `test` is None when there is nobody to compare with, or nothing to compare by. `rows` of
    the candidate's `own_rows` test rows were compared.
    """

    mode: PromotionGate
    name: str
    word: GateWord
    result: Fault
    holder: int | None = None
    test: PairedTest | None = None
    rows: int = 0
    own_rows: int = 0

    @property
    def is_refused(self) -> bool:
        """Whether it may not be promoted at all."""
        return self.mode == "require" and self.word in HELD

    @property
    def needs_confirmation(self) -> bool:
        """Whether the model's name has to be typed first."""
        return self.mode == "warn" and self.word in HELD

    def record(self, confirmed: str) -> GateRecord:
        """For the audit record."""
        kept = confirmed if self.needs_confirmation else ""
        return GateRecord(word=self.word, holder=self.holder, result=self.result, confirmed=kept)


def previous_production(versions: Sequence[ModelVersion], holder: int | None) -> int | None:
    """The version that was in Production before the present one, from the audit record; None when there was none.

    Each promotion puts a version on top of a pile, each rollback takes off what lies above the version it put back: so
    rolling back twice goes back two steps, not to and fro. Versions that were deleted since are passed over.
    """
    pile: list[int] = []
    for number, change in _promotions(versions):
        if change.kind == "rollback" and number in pile:
            while pile[-1] != number:
                pile.pop()
        elif not pile or pile[-1] != number:
            pile.append(number)
    return next((number for number in reversed(pile) if number != holder), None)


def _promotions(versions: Sequence[ModelVersion]) -> list[tuple[int, StageChange]]:
    found = [
        (version.version, change)
        for version in versions
        for change in version.history
        if change.to_stage == "Production"
    ]
    return sorted(found, key=lambda entry: entry[1].at)
