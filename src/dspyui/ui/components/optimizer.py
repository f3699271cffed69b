"""What improves the prompt: the optimizer, its parameters, and what is to be said of the data's size."""

from collections.abc import Mapping
from functools import partial

from nicegui import ui

from dspyui.domain.optimizers import OPTIMIZERS, OptimizerSpec
from dspyui.domain.splits import SplitName
from dspyui.errors import DSPyUIError
from dspyui.services.documents import part_of
from dspyui.ui.components.form import Bounds, Form, folded_parameter_inputs, number_input
from dspyui.ui.drafts import CompileDraft
from dspyui.ui.elements import Region, box, card, control, help_link, labelled, marked, tag


def optimizer_card(form: Form) -> None:
    """The card about the optimizer; its lower part is drawn anew for another one."""
    text, draft = form.text, form.draft
    with card(text("ui.optimizer.title"), note=text("ui.optimizer.lead"), mark="optimizer-card") as aside:
        with aside:
            help_link(text, "optimizers")
        with box("d-cols"), labelled(text("ui.optimizer.kind")):
            options = {
                kind: text("optimizer.none.label") if kind == "none" else info.label
                for kind, info in OPTIMIZERS.items()
            }
            select = ui.select(options, value=draft.optimizer)
            control(select, text("ui.optimizer.kind"), "optimizer")
        region = Region(partial(_params, form))

    def choose() -> None:
        draft.optimizer = select.value
        form.touch()
        region.draw()

    select.on_value_change(choose)


def _params(form: Form) -> None:
    kind = form.draft.optimizer
    marked(tag("p", form.text(f"optimizer.{kind}.help"), "d-note"), "optimizer-help")
    values = form.draft.own_optimizer_params()
    folded_parameter_inputs(
        form,
        f"optimizer.{kind}",
        OPTIMIZERS[kind].parameters,
        values,
        "optimizer",
        more=None if kind == "none" else partial(_seed, form),
    )


def _seed(form: Form) -> None:
    number_input(
        form,
        form.draft,
        "seed",
        form.text("ui.optimizer.seed"),
        "seed",
        note=form.text("ui.optimizer.seed_help"),
        bounds=Bounds(low=0),
    )


def rows_problem(draft: CompileDraft, sizes: Mapping[SplitName, int]) -> DSPyUIError | None:
    """Why the chosen optimizer could not run on splits of these sizes."""
    try:
        _spec(draft).check_rows(train=sizes["train"], validation=sizes["validation"])
    except DSPyUIError as exc:
        return exc
    return None


def size_warnings(form: Form, sizes: Mapping[SplitName, int]) -> None:
    """What is to be said of splits of these sizes; nothing of it keeps a compile from starting."""
    for warning in _spec(form.draft).warnings(train=sizes["train"], validation=sizes["validation"]):
        kind = warning.code.partition(".")[0]
        marked(tag("p", warning.sentence(form.text.language), "d-warning"), f"optimizer-warning-{kind}")


def _spec(draft: CompileDraft) -> OptimizerSpec:
    return part_of(OptimizerSpec, draft.optimizer_document())
