"""The gate before Production: is a candidate better than what is there, on the rows that both were tested on?"""

from dspyui.domain.base import Fault
from dspyui.domain.comparisons import PairedTest
from dspyui.domain.promotions import GateReport
from dspyui.domain.registry import GateRecord, GateWord, ModelRegistry, ModelVersion
from dspyui.domain.runs import RunInfo
from dspyui.errors import ConflictError, NotFoundError
from dspyui.services.run_comparison import RunComparison
from dspyui.services.runs import RunService
from dspyui.settings import PromotionGate

_WORDS: dict[str, GateWord] = {"first": "worse", "second": "better", "unclear": "unclear"}


class GateService:
    """Compares by the Runs that versions came from. Pages, API and command line all go through here."""

    def __init__(self, registry: ModelRegistry, runs: RunService, mode: PromotionGate) -> None:
        self._registry = registry
        self._runs = runs
        self._mode: PromotionGate = mode

    def report(self, version: ModelVersion) -> GateReport | None:
        """What there is to know before the version goes to Production; None when the gate is off or it is there.

        Raises UnavailableError.
        """
        if version.stage == "Production":
            return None
        return self.report_of_run(version.name, version.run_id)

    def report_of_run(self, name: str, run_id: str | None) -> GateReport | None:
        """The same for a version that is still to be made of a Run. Raises UnavailableError."""
        if self._mode == "off":
            return None
        holder = self._holder(name)
        candidate = self._run(run_id)
        if holder is None:
            return self._alone(name, candidate)
        return self._against(name, candidate, holder)

    def pass_through(self, report: GateReport | None, confirm: str) -> GateRecord | None:
        """What goes into the audit record, when it may go on.

        Raises ConflictError: `gate.refused` where worse and untested versions are, `gate.confirm` when `confirm` is not
        the model's name though it has to be.
        """
        if report is None:
            return None
        values = {"name": report.name, "result": report.result.model_dump()}
        if report.is_refused:
            raise ConflictError("gate.refused", **values)
        if report.needs_confirmation and confirm.strip() != report.name:
            raise ConflictError("gate.confirm", **values)
        return report.record(confirm.strip())

    def _holder(self, name: str) -> ModelVersion | None:
        try:
            return self._registry.get_by_stage(name, "Production")
        except NotFoundError:
            return None

    def _run(self, run_id: str | None) -> RunInfo | None:
        """The Run, also a deleted one; None when it is gone for good, or never was."""
        try:
            return None if run_id is None else self._runs.info(run_id)
        except NotFoundError:
            return None

    def _alone(self, name: str, candidate: RunInfo | None) -> GateReport:
        score = None if candidate is None else candidate.metrics.get("evaluation_score")
        word: GateWord = "untested" if score is None else "first"
        result = (
            Fault(code="gate_result.untested", values={"reason": _reason("no_score")})
            if score is None
            else Fault(code="gate_result.first", values={"score": f"{score:.2f}"})
        )
        return GateReport(mode=self._mode, name=name, word=word, result=result)

    def _against(self, name: str, candidate: RunInfo | None, holder: ModelVersion) -> GateReport:
        present = self._run(holder.run_id)
        if candidate is None or present is None:
            reason = _reason("no_run" if candidate is None else "no_run_there", holder=holder.version)
            return self._untested(name, holder, reason)
        if candidate.run_id == present.run_id:
            result = Fault(code="gate_result.same_run", values={"holder": holder.version})
            return GateReport(
                mode=self._mode, name=name, word="unclear", result=result,
                holder=holder.version,
            )  # fmt: skip
        found = self._runs.compare([present.run_id, candidate.run_id])
        if found.obstacle is not None:
            values = found.obstacle.values
            return self._untested(name, holder, _reason(found.obstacle.key.rpartition(".")[2], **values))
        return self._tested(name, holder, found)

    def _untested(self, name: str, holder: ModelVersion, reason: dict[str, object]) -> GateReport:
        result = Fault(
            code="gate_result.untested_against", values={"holder": holder.version, "reason": reason}
        )
        return GateReport(mode=self._mode, name=name, word="untested", result=result, holder=holder.version)

    def _tested(self, name: str, holder: ModelVersion, found: RunComparison) -> GateReport:
        test, own = found.tests[0], found.runs[1].own
        word = _WORDS[test.verdict]
        own_rows = own.rows if own else found.counted
        code = "same" if word == "unclear" and test.rows_needed is None else word
        return GateReport(
            mode=self._mode,
            name=name,
            word=word,
            result=Fault(
                code=f"gate_result.{code}",
                values={"holder": holder.version, "own": own_rows, **_figures(test, found.counted)},
            ),
            holder=holder.version,
            test=test,
            rows=found.counted,
            own_rows=own_rows,
        )


def _figures(test: PairedTest, rows: int) -> dict[str, object]:
    """The numbers of the sentence, as they are written everywhere."""
    difference = test.difference
    low, high = difference.low, difference.high
    return {
        "rows": rows,
        "difference": _signed(difference.value),
        "interval": "–" if low is None or high is None else f"{_signed(low)} … {_signed(high)}",
        "p": "< 0.001" if test.adjusted < 0.001 else f"= {test.adjusted:.3f}",
        "needed": None if test.rows_needed is None else f"{test.rows_needed:,}",
    }


def _signed(value: float) -> str:
    text = f"{abs(value):.2f}"
    return text if text == "0.00" else f"{'+' if value > 0 else '−'}{text}"


def _reason(code: str, **values: object) -> dict[str, object]:
    """Why nothing was compared, as an error within another's values."""
    return {"code": f"gate_reason.{code}", "values": values}
