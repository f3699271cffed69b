"""Tells a job's course on stderr: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dspyui.cli.console import Console
from dspyui.domain.batches import BatchProgress
from dspyui.domain.compiles import Progress
from dspyui.domain.jobs import JobEvent
from dspyui.services.follow import Watcher


class LineNarrator:
    """One line an event."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def on_event(self, event: JobEvent) -> None:
        """Say it."""
        self._console.note(event.sentence(self._console.language))

    def on_progress(self, progress: Progress | BatchProgress, /) -> None:
        """Nothing: a log is not a bar."""


@contextmanager
def narrator(console: Console) -> Iterator[Watcher[Progress | BatchProgress]]:
    """The watcher that fits stderr."""
    if not sys.stderr.isatty():
        yield LineNarrator(console)
        return
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    terminal = Terminal(stderr=True, markup=False, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=terminal, transient=True) as bar:
        task = bar.add_task("", total=None)

        class BarNarrator:
            """Events above, the bar below."""

            def on_event(self, event: JobEvent) -> None:
                bar.console.print(event.sentence(console.language), markup=False, highlight=False)

            def on_progress(self, progress: Progress | BatchProgress, /) -> None:
                phase = console.text(f"phase.{progress.phase}")
                bar.update(task, description=phase, completed=progress.done, total=progress.total or None)

        yield BarNarrator()
