"""People's own metrics: Python files in the data folder. They are code, and loading one runs it."""

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from dspyui.domain.metrics import CustomMetric
from dspyui.errors import BadRequestError, NotFoundError

FOLDER = "metrics"
FUNCTION = "metric"


class FileMetrics:
    """Implements `domain.metrics.MetricFiles`. Nothing is run before it is asked for by name, and then once."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER
        self._lock = threading.Lock()
        self._loaded: dict[str, CustomMetric] = {}

    def names(self) -> Sequence[str]:
        """The stems of the `.py` files that are Python names; `_*.py` are parts of others."""
        return sorted(self._files())

    def find_digest(self, name: str) -> str | None:
        """The SHA-256 of the file as it is now; None when there is none that can be read."""
        file = self._files().get(name)
        try:
            return None if file is None else sha256(file.read_bytes()).hexdigest()
        except OSError:
            return None

    def without_folder(self, text: str) -> str:
        """A text with the data folder's path cut off from what lies in it."""
        for home in {str(self._folder.parent), str(self._folder.parent.resolve())}:
            text = text.replace(f"{home}{os.sep}", "")
        return text

    def load(self, name: str) -> CustomMetric:
        """Run the file and return its `metric`."""
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def _load(self, name: str) -> CustomMetric:
        files = self._files()
        if name not in files:
            raise NotFoundError("metric.custom_missing", name=name, known=", ".join(sorted(files)) or "—")
        file = files[name]
        shown = f"{FOLDER}/{file.name}"
        module = ModuleType(f"dspyui_metric_{name}")
        module.__file__ = str(file)
        # A dataclass in the file looks its own module up there.
        sys.modules[module.__name__] = module
        try:
            exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)  # noqa: S102 - their own code
        except BaseException as exc:
            # `sys.exit()` and the like would end the job's process without a word.
            problem = self.without_folder(f"{type(exc).__name__}: {exc}")
            raise BadRequestError("metric.custom_load", file=shown, problem=problem) from exc
        found = getattr(module, FUNCTION, None)
        if not callable(found):
            raise BadRequestError("metric.custom_function", file=shown)
        return found

    def _files(self) -> Mapping[str, Path]:
        # The folder is listed and the name looked up in the list: a name never becomes a path.
        found = self._folder.glob("*.py") if self._folder.is_dir() else ()
        return {
            file.stem: file
            for file in found
            if file.is_file() and file.stem.isidentifier() and not file.stem.startswith("_")
        }
