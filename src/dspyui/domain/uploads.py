"""Data sets that are kept."""

from collections.abc import Sequence
from typing import Protocol

from dspyui.domain.base import Frozen
from dspyui.domain.tables import DataFormat, RawTable


class UploadInfo(Frozen):
    """A kept data set: its digest (SHA-256 of the bytes), its name, size in bytes, when; and what stands in it.

    Those kept by an earlier version know neither rows nor columns, and their name ends as their file did.
    """

    digest: str
    name: str
    size: int
    at: str
    format: DataFormat | None = None
    encoding: str = ""
    rows: int | None = None
    columns: tuple[str, ...] = ()


class UploadStore(Protocol):
    """Keeps data sets under the digest of their bytes; a name never becomes a path."""

    def keep(self, name: str, content: bytes, table: RawTable | None = None) -> UploadInfo:
        """Keep the bytes, and what the table says of them. Equal bytes are kept once; the newest name is theirs."""
        ...

    def get(self, digest: str) -> UploadInfo:
        """Raises NotFoundError."""
        ...

    def path(self, digest: str) -> str:
        """Where the file lies. Raises NotFoundError."""
        ...

    def read(self, digest: str) -> tuple[str, bytes]:
        """Name and content. Raises NotFoundError."""
        ...

    def search(self) -> Sequence[UploadInfo]: ...

    def rename(self, digest: str, name: str) -> UploadInfo:
        """Raises NotFoundError, BadRequestError for a name that is empty."""
        ...

    def delete(self, digest: str) -> None: ...
