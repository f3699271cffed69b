"""What the compile form begins with: what its address asks for, what the visitor left, or an example; and how the
visitor's draft is kept for the next look."""

from dataclasses import dataclass
from typing import Final

from nicegui import app

from dspyui.domain.lms import LMSpec
from dspyui.errors import BadRequestError, DSPyUIError
from dspyui.i18n import Text
from dspyui.services import Services
from dspyui.services.documents import part_of
from dspyui.services.examples import EXAMPLES, FIRST_EXAMPLE, ExampleName, example_spec
from dspyui.services.reuse import Loaded
from dspyui.ui.background import off_loop
from dspyui.ui.draft_sources import cells_of, draft_from_store, draft_of, empty_draft, lm_draft
from dspyui.ui.drafts import CompileDraft, LMDraft
from dspyui.ui.elements import sentence

# A longer draft is not kept for the visitor's next look; characters of all cells together.
KEEP_CHARACTERS: Final = 300_000
STORE_KEY: Final = "draft"
# What is to be said of a draft that was just loaded, once.
NOTICE_KEY: Final = "draft_notice"
# Whether the kept draft is the visitor's own work, and not what an example or a file filled in.
CHANGED_KEY: Final = "draft_changed"
# Where the visitor's own default model is kept: a name and an address.
DEFAULT_KEY: Final = "default_lm"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks for: a job (`?job=ID`), a Run (`?run=ID`), an example or an empty form (`?start=`).

    `?start=` takes an example's name, or `empty`. `?data=DIGEST` chooses a kept data set in the form.
    """

    job: str = ""
    run: str = ""
    start: str = ""
    data: str = ""


async def first_draft(services: Services, text: Text, asked: Asked) -> tuple[CompileDraft, str]:
    """The draft to begin with, and what to say of it."""
    if asked.job or asked.run:
        reuse = services.reuse
        try:
            loaded = await (
                off_loop(reuse.job, asked.job) if asked.job else off_loop(reuse.run, asked.run.strip())
            )
            return await off_loop(loaded_draft, services, loaded), said(loaded, text)
        except DSPyUIError as exc:
            return await off_loop(_example_draft, services, FIRST_EXAMPLE), sentence(exc, text)
    if asked.start == "empty":
        draft = empty_draft()
        draft.task = default_lm(services)
        return draft, text("ui.compile.empty")
    example: ExampleName | None = next((name for name in EXAMPLES if name == asked.start), None)
    kept = app.storage.user.get(STORE_KEY) if example is None else None
    if kept:
        try:
            return draft_from_store(kept), app.storage.user.pop(NOTICE_KEY, "")
        except (TypeError, KeyError, AttributeError):
            # Kept by another version of the program.
            app.storage.user.pop(STORE_KEY, None)
    example = example or FIRST_EXAMPLE
    return await off_loop(_example_draft, services, example), text(f"example.{example}.lead")


async def choose_data(services: Services, text: Text, draft: CompileDraft, digest: str) -> str:
    """Choose the kept data set, and say so."""
    try:
        info = await off_loop(services.uploads.get, digest)
    except DSPyUIError as exc:
        return sentence(exc, text)
    chosen = draft.data
    chosen.source, chosen.upload, chosen.upload_name, chosen.path = "upload", info.digest, info.name, ""
    chosen.columns.clear()
    return text("ui.compile.from_data", name=info.name)


def _example_draft(services: Services, name: ExampleName) -> CompileDraft:
    spec = example_spec(name)
    draft = draft_of(spec)
    draft.data.rows = cells_of(draft, services.data.table(spec.data).rows)
    draft.data.source, draft.data.path = "rows", ""
    if services.settings.lm_model:
        draft.task = lm_draft(services.lms.default())
    return draft


def loaded_draft(services: Services, loaded: Loaded) -> CompileDraft:
    """The form of what was loaded; rows that are not there are to be given anew."""
    draft = draft_of(loaded.spec)
    if not loaded.has_data:
        draft.data.rows = [{}, {}, {}]
    _name_files(services, draft)
    return draft


def said(loaded: Loaded, text: Text) -> str:
    """All there is to know of what was loaded."""
    return text.in_a_row(notice.sentence(text.language) for notice in loaded.notices)


def _name_files(services: Services, draft: CompileDraft) -> None:
    """A spec knows data sets by their digest; people by their name."""
    names = {info.digest: info.name for info in services.uploads.search()}
    for chosen in (draft.data, draft.data.validation_file, draft.data.test_file):
        chosen.upload_name = names.get(chosen.upload, "")


def default_lm(services: Services) -> LMDraft:
    """What a new form begins with: the visitor's own choice, else the program's."""
    kept = app.storage.user.get(DEFAULT_KEY)
    if isinstance(kept, dict):
        try:
            return lm_draft(part_of(LMSpec, kept))
        except BadRequestError:
            # Kept by another version of the program.
            app.storage.user.pop(DEFAULT_KEY, None)
    return lm_draft(services.lms.default())


def keep_draft(draft: CompileDraft, *, is_changed: bool) -> None:
    """Keep the draft for the visitor's next look, unless it is very long; and whether the visitor changed it."""
    app.storage.user[CHANGED_KEY] = is_changed
    cells = sum(len(text) for row in draft.data.rows for text in row.values())
    if cells <= KEEP_CHARACTERS:
        app.storage.user[STORE_KEY] = draft.to_store()


def leave_draft(draft: CompileDraft, notice: str) -> None:
    """Leave a draft, and what is to be said of it, for the form that opens next."""
    app.storage.user[STORE_KEY] = draft.to_store()
    app.storage.user[CHANGED_KEY] = False
    app.storage.user[NOTICE_KEY] = notice


def was_changed() -> bool:
    """Whether the kept draft holds what the visitor typed."""
    return bool(app.storage.user.get(CHANGED_KEY))
