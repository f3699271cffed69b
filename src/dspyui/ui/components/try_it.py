"""Try a program on one row: a form of its inputs, and what came back."""

from collections.abc import Callable
from urllib.parse import urlencode

from dspyui.domain.engine import PredictOutcome
from dspyui.domain.signatures import Row, SignatureSpec
from dspyui.errors import DSPyUIError
from dspyui.i18n import Text
from dspyui.ui.background import patiently
from dspyui.ui.components.answer import draw_answer
from dspyui.ui.components.row_form import RowForm
from dspyui.ui.elements import box, button, card, link_button, problem, sentence


def test_address(model: str) -> str:
    """The Test page with a program on it."""
    return f"/test?{urlencode({'model': model})}"


class TryCard:
    """`predict` is a service call that takes the inputs and gives the outcome; `more` is the Test page's address."""

    def __init__(
        self,
        text: Text,
        signature: SignatureSpec,
        predict: Callable[[Row], PredictOutcome],
        example: Row | None = None,
        *,
        more: str = "",
    ) -> None:
        self._text = text
        self._signature = signature
        self._predict = predict
        with card(text("ui.try.title"), note=text("ui.try.lead"), mark="try"):
            self._form = RowForm(text, signature.inputs, example, mark="try")
            with box("d-row"):
                self._button = button(text("ui.try.run"), self._run, mark="try-run", icon="play_arrow")
                if more:
                    link_button(text("ui.try.more"), more, mark="open-test", kind="quiet", icon="science")
            self._answer = box("d-stack").props("aria-live=polite")

    async def _run(self) -> None:
        row = self._form.read()
        if row is None:
            return
        self._button.props("loading")
        self._answer.clear()
        try:
            outcome = await patiently(self._predict, row)
        except DSPyUIError as exc:
            with self._answer:
                problem(self._text, sentence(exc, self._text), mark="try-problem")
            return
        finally:
            self._button.props(remove="loading")
        with self._answer:
            draw_answer(self._text, outcome, self._signature.outputs, mark="try-answer")
