"""What the data folder holds, and programs kept in it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol

from dspyui.domain.base import Frozen
from dspyui.domain.programs import CompiledProgram

FolderName = Literal["jobs", "programs", "uploads", "cache", "spool", "other"]


class FolderUsage(Frozen):
    """The disk a part of the data folder takes: bytes and number of files."""

    name: FolderName
    size: int
    files: int


class KeptProgram(Frozen):
    """A compiled program in the data folder; it stays when its job is deleted."""

    job_id: str
    name: str
    at: datetime


class ProgramStore(Protocol):
    """Keeps compiled programs under the id of the job that made them."""

    def keep(self, job_id: str, program: CompiledProgram) -> None: ...

    def get(self, job_id: str) -> CompiledProgram:
        """Raises NotFoundError."""
        ...

    def path(self, job_id: str) -> str:
        """Where the file lies. Raises NotFoundError."""
        ...

    def search(self) -> Sequence[KeptProgram]: ...

    def delete(self, job_id: str) -> None: ...

    def keep_uploaded(self, program: CompiledProgram) -> str:
        """Keep one that somebody has sent; gives the SHA-256 (hex) of its document, under which it is found."""
        ...

    def uploaded(self, digest: str) -> CompiledProgram:
        """One that was sent. Raises NotFoundError."""
        ...


class DataFolder(Protocol):
    """The data folder as a whole."""

    def usage(self) -> Sequence[FolderUsage]: ...

    def free(self) -> int:
        """Free bytes on its disk."""
        ...

    def clear_cache(self) -> None:
        """Delete the replies kept from language models."""
        ...
