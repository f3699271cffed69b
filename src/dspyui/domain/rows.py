"""Keys and digests of rows."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dspyui.domain.signatures import Row

_canonical = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=str).encode


def row_key(row: Mapping[str, Any]) -> str:
    """The row's content as canonical JSON; equal rows have equal keys."""
    return _canonical(row)


def digest_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 (hex) over the rows in their order."""
    sha = hashlib.sha256()
    for row in rows:
        sha.update(row_key(row).encode())
        sha.update(b"\n")
    return sha.hexdigest()


def short_digest(line: bytes) -> bytes:
    # 16 bytes: two of a billion different rows meet with a chance of 1 in 10^21.
    return hashlib.blake2b(line, digest_size=16).digest()


def input_key(row: Row, inputs: Sequence[str]) -> bytes:
    return short_digest(row_key({name: row[name] for name in inputs}).encode())
