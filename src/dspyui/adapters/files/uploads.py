"""Data sets kept in the data folder."""

import hashlib
import logging
import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from dspyui.adapters.files.atomic import private_folder, write_atomic
from dspyui.adapters.files.documents import read_document
from dspyui.domain.tables import RawTable
from dspyui.domain.uploads import UploadInfo
from dspyui.errors import BadRequestError, FailedError, NotFoundError

_log = logging.getLogger(__name__)

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_NAME = 200


class FileUploadStore:
    """Data sets as `<home>/uploads/<digest>`, each with `<digest>.json` beside it for its name and what it holds."""

    def __init__(self, home: Path) -> None:
        self._root = home / "uploads"

    def keep(self, name: str, content: bytes, table: RawTable | None = None) -> UploadInfo:
        """Keep the bytes under their digest. The same bytes are kept once; the newest name is theirs."""
        digest = hashlib.sha256(content).hexdigest()
        info = UploadInfo(
            digest=digest,
            name=_plain_name(name) or "upload",
            size=len(content),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            format=table.format if table else None,
            encoding=table.encoding if table else "",
            rows=len(table.rows) if table else None,
            columns=table.columns if table else (),
        )
        private_folder(self._root)
        write_atomic(self._root / digest, content, durable=True)
        self._write(info)
        return info

    def get(self, digest: str) -> UploadInfo:
        """What is known of it. Raises NotFoundError."""
        path = self._file(digest)
        try:
            return read_document(path.with_suffix(".json"), UploadInfo)
        except FileNotFoundError as exc:
            raise NotFoundError("upload.unknown", digest=digest[:12]) from exc

    def path(self, digest: str) -> str:
        """Where the file lies. Raises NotFoundError."""
        path = self._file(digest)
        if not path.is_file():
            raise NotFoundError("upload.unknown", digest=digest[:12])
        return str(path)

    def read(self, digest: str) -> tuple[str, bytes]:
        """Name and content. Raises NotFoundError."""
        name = self.get(digest).name
        try:
            return name, self._file(digest).read_bytes()
        except FileNotFoundError as exc:
            raise NotFoundError("upload.unknown", digest=digest[:12]) from exc

    def search(self) -> Sequence[UploadInfo]:
        """All data sets, newest first. One that cannot be read is left out and logged."""
        found = [self._find(path) for path in self._root.glob("[!.]*.json")]
        return sorted((info for info in found if info is not None), key=lambda info: info.at, reverse=True)

    def rename(self, digest: str, name: str) -> UploadInfo:
        """Give it another name. Raises NotFoundError, or BadRequestError for a name without a letter."""
        info = self.get(digest)
        plain = _plain_name(name)
        if not plain:
            raise BadRequestError("upload.name")
        # One of an earlier version says its format by its name alone.
        renamed = info.model_copy(update={"name": plain if info.format else plain + Path(info.name).suffix})
        self._write(renamed)
        return renamed

    def delete(self, digest: str) -> None:
        """Raises NotFoundError."""
        path = self._file(digest)
        # One whose file was taken away by hand is still listed, and has to be deletable too.
        parts = [part for part in (path, path.with_suffix(".json")) if part.exists()]
        if not parts:
            raise NotFoundError("upload.unknown", digest=digest[:12])
        for part in parts:
            part.unlink(missing_ok=True)

    def _write(self, info: UploadInfo) -> None:
        write_atomic(self._root / f"{info.digest}.json", info.model_dump_json(), durable=True)

    def _file(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise NotFoundError("upload.unknown", digest=digest[:12])
        return self._root / digest

    def _find(self, path: Path) -> UploadInfo | None:
        try:
            return read_document(path, UploadInfo)
        except (FileNotFoundError, FailedError) as exc:
            _log.warning("Upload %r is left out: %s", path.name, exc)
            return None


def _plain_name(name: str) -> str:
    """The last part of what a browser called the file, printable and of bounded length; its ending is kept."""
    last = re.split(r"[/\\]", name)[-1]
    printable = "".join(c for c in last if unicodedata.category(c)[0] != "C").strip()
    return printable[-_MAX_NAME:]
