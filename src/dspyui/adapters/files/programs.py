"""Compiled programs kept in the data folder."""

import hashlib
import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from dspyui.adapters.files.atomic import private_folder, write_atomic
from dspyui.adapters.files.documents import ReadCache, read_document
from dspyui.domain.jobs import check_job_id
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.storage import KeptProgram
from dspyui.errors import DSPyUIError, NotFoundError

_log = logging.getLogger(__name__)
# A folder of its own: these are in no list, and no job made them.
_UPLOADED = "uploaded"


class FileProgramStore:
    """Programs as `<home>/programs/<job_id>.json`; they stay when their job is deleted.

    Those that somebody has sent lie in `uploaded/`, each under the SHA-256 of its document.
    """

    def __init__(self, home: Path) -> None:
        self._root = home / "programs"
        self._kept = ReadCache(_kept_program)

    def keep(self, job_id: str, program: CompiledProgram) -> None:
        """Write the program, replacing one of the same job. Raises NotFoundError for an impossible id."""
        path = self._file(job_id)
        private_folder(self._root)
        write_atomic(path, program.to_json(), durable=True)

    def get(self, job_id: str) -> CompiledProgram:
        """Raises NotFoundError, FailedError for a broken file, BadRequestError for one that was altered."""
        try:
            return read_document(self._file(job_id), CompiledProgram)
        except FileNotFoundError as exc:
            raise NotFoundError("program.unknown", job_id=job_id) from exc

    def path(self, job_id: str) -> str:
        """Where the file lies. Raises NotFoundError."""
        path = self._file(job_id)
        if not path.is_file():
            raise NotFoundError("program.unknown", job_id=job_id)
        return str(path)

    def search(self) -> Sequence[KeptProgram]:
        """All programs, newest first. A file that cannot be read is left out and logged."""
        paths = sorted(self._root.glob("[!.]*.json"), reverse=True)
        found = [self._find(path) for path in paths]
        return [program for program in found if program is not None]

    def delete(self, job_id: str) -> None:
        """Raises NotFoundError."""
        try:
            self._file(job_id).unlink()
        except FileNotFoundError as exc:
            raise NotFoundError("program.unknown", job_id=job_id) from exc

    def keep_uploaded(self, program: CompiledProgram) -> str:
        """The same program is kept once."""
        text = program.to_json()
        digest = hashlib.sha256(text.encode()).hexdigest()
        private_folder(self._root)
        private_folder(self._root / _UPLOADED)
        write_atomic(self._uploaded_file(digest), text, durable=True)
        return digest

    def uploaded(self, digest: str) -> CompiledProgram:
        """Raises NotFoundError, FailedError for a broken file, BadRequestError for one that was altered."""
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise NotFoundError("program.not_uploaded", digest=digest[:64])
        try:
            return read_document(self._uploaded_file(digest), CompiledProgram)
        except FileNotFoundError as exc:
            raise NotFoundError("program.not_uploaded", digest=digest) from exc

    def _uploaded_file(self, digest: str) -> Path:
        return self._root / _UPLOADED / f"{digest}.json"

    def _file(self, job_id: str) -> Path:
        return self._root / f"{check_job_id(job_id)}.json"

    def _find(self, path: Path) -> KeptProgram | None:
        try:
            return self._kept.get(path)
        except (FileNotFoundError, DSPyUIError) as exc:
            _log.warning("Program %r is left out: %s", path.name, exc)
            return None


def _kept_program(path: Path) -> KeptProgram:
    program = read_document(path, CompiledProgram)
    at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return KeptProgram(job_id=check_job_id(path.stem), name=program.spec.name, at=at)
