"""Which encoding a text file is in; what is no text is refused."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dspyui.adapters.files.source import MEGABYTE, DataFile
from dspyui.errors import BadRequestError

_BLOCK: Final = MEGABYTE
_CONTROLS = bytes(code for code in range(32) if chr(code) not in "\t\n\v\f\r\x1b")
# Text has hardly any; of random bytes they are a tenth.
_CONTROL_SHARE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Encoding:
    """Python's name of a codec, and the name a person knows."""

    codec: str
    label: str


UTF8 = Encoding("utf-8", "UTF-8")
UTF8_MARKED = Encoding("utf-8-sig", "UTF-8 (BOM)")
UTF16 = Encoding("utf-16", "UTF-16")
GB18030 = Encoding("gb18030", "GB18030")


def find_encoding(file: DataFile) -> Encoding:
    """UTF-16 when its mark says so, UTF-8 when all bytes fit, else GB18030.

    Raises BadRequestError for what is no text, and for what as GB18030 would be read as nonsense: UTF-8 with broken
    places, and the encodings of other languages.
    """
    with file.open() as opened:
        start = opened.read(4)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        if _broken_at(file, UTF16) is None and not any("\0" in text for text in _decoded(file, UTF16)):
            return UTF16
        raise BadRequestError("file.encoding", name=file.name)
    if not _is_text(file):
        raise BadRequestError("file.encoding", name=file.name)
    marked = UTF8_MARKED if start.startswith(codecs.BOM_UTF8) else UTF8
    broken = _broken_at(file, marked)
    if broken is None:
        return marked
    if marked is UTF8_MARKED or _is_mostly_utf8(file, broken):
        raise BadRequestError("file.utf8", name=file.name, line=_line_of(file, broken))
    # Last: GB18030 takes nearly any bytes, UTF-8 takes only its own.
    if _broken_at(file, GB18030) is not None or not _is_likely_gb18030(file):
        raise BadRequestError("file.encoding", name=file.name)
    return GB18030


def _blocks(file: DataFile) -> Iterator[bytes]:
    with file.open() as opened:
        while block := opened.read(_BLOCK):
            yield block


def _is_text(file: DataFile) -> bool:
    controls = 0
    for block in _blocks(file):
        if b"\0" in block:
            return False
        controls += len(block) - len(block.translate(None, _CONTROLS))
    return controls <= file.size * _CONTROL_SHARE


def _decoded(file: DataFile, encoding: Encoding) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding.codec)()
    for block in _blocks(file):
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def _broken_at(file: DataFile, encoding: Encoding) -> int | None:
    """About where the first bytes stand that do not fit (to a block's beginning); None when all fit."""
    done = 0
    try:
        for _text in _decoded(file, encoding):
            done += _BLOCK
    except UnicodeDecodeError as exc:
        # What the decoder kept of the block before is counted in; a few bytes are no matter here.
        return max(0, min(done, file.size) + (exc.start if done < file.size else 0))
    return None


def _is_mostly_utf8(file: DataFile, broken: int) -> bool:
    """Whether more characters beyond ASCII fit than do not, near the place that is broken.

    Of Chinese text in GB18030 about a seventh fits by chance.
    """
    with file.open() as opened:
        opened.seek(max(0, broken - _BLOCK))
        text = opened.read(2 * _BLOCK).decode("utf-8", errors="replace")
    broken_count = text.count("\ufffd")
    beyond = sum(not char.isascii() for char in text) - broken_count
    return beyond > broken_count


def _is_likely_gb18030(file: DataFile) -> bool:
    """Whether most characters beyond ASCII are of two bytes that both are beyond it, as all common ones are.

    The accents of a West European file (`Müller` in Windows-1252) fit too, each with the letter that follows it.
    """
    with file.open() as opened:
        text = opened.read(_BLOCK).decode(GB18030.codec, errors="ignore")
    beyond = [char.encode(GB18030.codec) for char in text if not char.isascii()]
    return sum(len(char) == 2 and char[1] < 0x80 for char in beyond) * 2 <= len(beyond)


def _line_of(file: DataFile, offset: int) -> int:
    lines, done = 1, 0
    for block in _blocks(file):
        lines += block[: max(0, offset - done)].count(b"\n")
        done += len(block)
        if done >= offset:
            break
    return lines
