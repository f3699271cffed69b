"""Rows typed by hand: a table of inputs, ten to a page. What stands here is what gets compiled."""

from functools import partial
from typing import Final

from nicegui import ui
from nicegui.events import GenericEventArguments

from dspyui.domain.splits import SPLIT_WORDS, SPLITS
from dspyui.ui.components.form import Form
from dspyui.ui.components.pager import Pager
from dspyui.ui.drafts import SPLIT_CELL, Cells, FieldDraft
from dspyui.ui.elements import Region, Tag, box, button, control, tag
from dspyui.ui.pasted import cells_of_text, paste

PAGE_ROWS: Final = 10
# A longer file is compiled as a file; a table of inputs for it would be of no use.
GRID_LIMIT: Final = 2000
# What is pasted goes to the server in one message, and those may have a megabyte; a character takes up to four bytes.
PASTE_CHARACTERS: Final = 200_000
# One line of text is pasted by the browser, at the cursor; several cells come here. Null: it is too long.
_ON_PASTE: Final = rf"""(event) => {{
  const text = event.clipboardData.getData('text/plain');
  if (!/[\t\r\n]/.test(text.replace(/\r?\n$/, ''))) return;
  event.preventDefault();
  emit(text.length > {PASTE_CHARACTERS} ? null : text);
}}"""


class RowGrid:
    """Draws one page of the draft's rows; cells write straight into them."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._pager = Pager(PAGE_ROWS)
        self._heads: dict[str, Tag] = {}
        self._region = Region(self._draw)
        form.on_shape.append(self.draw)
        form.on_names.append(self._name)

    def draw(self) -> None:
        """Draw it anew, after rows were loaded; while a file is shown instead, when it is turned to again."""
        # Tooltips that are drawn into a panel which is not there complain that they find no anchor.
        if self._form.draft.data.source == "rows":
            self._region.draw()

    def _draw(self) -> None:
        form, rows = self._form, self._form.draft.data.rows
        first, last = self._pager.bounds(len(rows))
        with box("d-table-box d-long"), box("d-table stacks", "table"):
            with box(name="thead"), box(name="tr"):
                tag("th", "#", "d-num")
                self._heads = {made.key: tag("th") for made in form.draft.all_fields()}
                if self._has_splits:
                    tag("th", form.text("ui.data.split"))
                tag("th").props["aria-label"] = form.text("ui.common.delete")
            with box(name="tbody"):
                for index in range(first, last):
                    self._row(index, rows[index])
        self._name()
        with box("d-row"):
            button(form.text("ui.data.add_row"), self._add, mark="add-row", kind="quiet", icon="add")
            box("d-grow")
            self._pager.draw(form.text, len(rows), self.draw, mark="rows")

    def _name(self) -> None:
        for made in self._form.draft.all_fields():
            if made.key in self._heads:
                self._heads[made.key].text = made.name or self._form.text("ui.fields.unnamed")

    def _row(self, index: int, row: Cells) -> None:
        with box(name="tr"):
            tag("td", str(index + 1), "d-num d-soft")
            for made in self._form.draft.all_fields():
                self._cell(index, row, made)
            if self._has_splits:
                self._split_cell(index, row)
            with box("d-last", "td"):
                button(
                    self._form.text("ui.data.delete_row", number=index + 1),
                    partial(self._delete, row),
                    mark=f"delete-row-{index}",
                    kind="quiet",
                    icon="close",
                    label_hidden=True,
                )

    def _cell(self, index: int, row: Cells, made: FieldDraft) -> None:
        name = made.name or self._form.text("ui.fields.unnamed")
        with box("d-edit", "td") as cell:
            cell.props["data-label"] = name
            made_input = ui.textarea(
                value=row.get(made.key, ""), on_change=partial(self._form.set_item, row, made.key)
            )
            made_input.props("outlined dense autogrow hide-bottom-space rows=1")
            made_input.props["aria-label"] = f"{name} {index + 1}"
            made_input.props["placeholder"] = "" if made.type == "str" else _hint(made)
            made_input.mark(f"cell-{index}-{made.key}")
            made_input.props["data-testid"] = f"cell-{index}-{made.key}"
            made_input.on("paste", partial(self._paste, index, made.key), js_handler=_ON_PASTE)

    @property
    def _has_splits(self) -> bool:
        """Whether each row says its split."""
        return self._form.draft.data.dealing == "column"

    def _split_cell(self, index: int, row: Cells) -> None:
        text = self._form.text
        word = row.get(SPLIT_CELL, "").strip()
        # A word that means a split is shown as that one; any other is left to be mended.
        options = {"": "–", **{name: text(f"split.{name}") for name in SPLITS}}
        value = SPLIT_WORDS.get(word.casefold(), word)
        if value not in options:
            options[value] = word
        with box("d-edit", "td") as cell:
            cell.props["data-label"] = text("ui.data.split")
            select = ui.select(options, value=value, on_change=partial(self._form.set_item, row, SPLIT_CELL))
            control(select, f"{text('ui.data.split')} {index + 1}", f"cell-{index}-split")

    def _add(self) -> None:
        rows = self._form.draft.data.rows
        rows.append({})
        self._pager.show_last(len(rows))
        self._form.touch()
        self.draw()

    def _paste(self, index: int, key: str, event: GenericEventArguments) -> None:
        form, rows = self._form, self._form.draft.data.rows
        text = form.text
        cells = cells_of_text(event.args) if isinstance(event.args, str) else []
        if not cells or index + len(cells) > GRID_LIMIT:
            ui.notify(text("ui.data.paste_too_long", limit=GRID_LIMIT), type="warning")
            return
        keys = [made.key for made in form.draft.all_fields()] + [SPLIT_CELL] * self._has_splits
        lost = paste(rows, keys, cells, row=index, column=keys.index(key))
        said = [text("ui.data.pasted", rows=len(cells))]
        if lost:
            said.append(text("ui.data.paste_lost", count=lost))
        ui.notify(text.in_a_row(said), type="warning" if lost else "positive")
        form.touch()
        self.draw()

    def _delete(self, row: Cells) -> None:
        rows = self._form.draft.data.rows
        # By identity: two rows may hold the same text.
        del rows[next(index for index, other in enumerate(rows) if other is row)]
        self._form.touch()
        self.draw()


def _hint(made: FieldDraft) -> str:
    return " | ".join(made.choice_list()) if made.type == "choice" else made.type
