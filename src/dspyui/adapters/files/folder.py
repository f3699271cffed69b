"""The data folder as a whole."""

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from dspyui.domain.storage import FolderName, FolderUsage

_CACHE = "cache"


class FileDataFolder:
    """Tells what the data folder takes, part by part, and clears the cache of replies."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def usage(self) -> Sequence[FolderUsage]:
        """Bytes and number of files of each part; what belongs to no part is `other`."""
        names: dict[str, FolderName] = {name: name for name in get_args(FolderName)}
        totals: dict[FolderName, list[int]] = {name: [0, 0] for name in names.values()}
        for entry in _entries(self._home):
            part = names.get(entry.name, "other")
            for size in _file_sizes(entry):
                totals[part][0] += size
                totals[part][1] += 1
        return [FolderUsage(name=name, size=size, files=files) for name, (size, files) in totals.items()]

    def free(self) -> int:
        """Free bytes on its disk."""
        existing = next(path for path in (self._home, *self._home.absolute().parents) if path.exists())
        return shutil.disk_usage(existing).free

    def clear_cache(self) -> None:
        """Delete the replies kept from language models.

        The folder leaves its place first, so that a running job goes on with a new, empty cache.
        """
        cache = self._home / _CACHE
        if cache.is_dir():
            cache.rename(self._home / f".{_CACHE}-{secrets.token_hex(4)}")
        for path in self._home.glob(f".{_CACHE}-*"):
            shutil.rmtree(path, ignore_errors=True)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    # Jobs and caches come and go while this looks; what has gone takes no room.
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _file_sizes(entry: os.DirEntry[str]) -> Iterator[int]:
    if entry.is_dir(follow_symlinks=False):
        for inner in _entries(Path(entry.path)):
            yield from _file_sizes(inner)
        return
    try:
        yield entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return
