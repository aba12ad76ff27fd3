"""Forms with files (RFC 7578), looked through while they pass by. Pure; nothing of a part's content is kept here.

Invariants:
- Every part is seen, wherever the bytes are cut. What two readers might take differently is refused: text before the
  first part, a boundary that is not on a line of its own, a part without one plain name, folded header lines, transfer
  encodings, white space after a boundary.
- What is held is one part's header, or the end of what came last, and bounded.
"""

from __future__ import annotations

import re

from gateway.errors import InvalidRequest
from gateway.model import Frozen

HEADER_BYTES_MAX = 8192
_BOUNDARY = re.compile(
    rb"""multipart/form-data[ \t]*;[ \t]*boundary=("?)([A-Za-z0-9'()+_,./:=?-]{1,70})\1[ \t]*""", re.IGNORECASE
)
_FIELD = re.compile(rb"([A-Za-z0-9-]{1,64}):[ \t]*([^\r\n\0]*)")
_DISPOSITION = re.compile(rb'form-data((?:[ \t]*;[ \t]*[a-zA-Z]+\*?=(?:"[^"\\]*"|[^";,\s\\]+))*)[ \t]*', re.IGNORECASE)
"""Without backslashes, which servers read in different ways: one would see another field than is checked here."""

_PARAMETER = re.compile(rb';[ \t]*([a-zA-Z]+\*?)=(?:"([^"\\]*)"|([^";,\s\\]+))')
_NAME = re.compile(rb"[A-Za-z0-9_.-]{1,128}(\[[A-Za-z0-9_.-]{0,64}\])?")
_PARAMETERS = frozenset({b"name", b"name*", b"filename", b"filename*"})
_PLAIN_ENCODINGS = frozenset({b"7bit", b"8bit", b"binary"})


class Part(Frozen, frozen=True):
    """One part: all of it is ``begin`` to ``end``, its content ``content`` to ``end``, in bytes of the body."""

    name: str
    is_file: bool
    begin: int  # of its delimiter, without the line break before it
    content: int
    end: int = -1  # -1: it is still going on


def read_boundary(content_type: bytes) -> bytes:
    """The boundary of a form. Raises InvalidRequest for another content type."""
    found = _BOUNDARY.fullmatch(content_type.strip())
    if found is None:
        raise InvalidRequest(
            "The body must be multipart/form-data with a boundary.", code="invalid_multipart", param="content-type"
        )
    return found[2]


class FormScanner:
    """Looks through one form. ``parts`` are those met so far; the last may still be going on."""

    def __init__(self, boundary: bytes, parts_max: int) -> None:
        self.boundary = boundary
        self.parts: list[Part] = []
        self.is_complete = False
        self._parts_max = parts_max
        self._dashes = b"--" + boundary
        self._buffer = bytearray(b"\r\n")  # as if a line had ended before the first delimiter
        self._at = -2  # where the buffer begins
        self._begin = 0
        self._step = self._in_preamble

    def feed(self, data: bytes) -> None:
        """Look at the next piece. Raises InvalidRequest."""
        self._buffer += data
        while self._step():
            pass

    def end(self) -> None:
        """The body came to its end. Raises InvalidRequest where the form did not."""
        if not self.is_complete:
            raise _invalid("it ends before its last boundary")

    def _consume(self, count: int) -> None:
        del self._buffer[:count]
        self._at += count

    # Each step returns whether the next one can be taken with what is there.

    def _in_preamble(self) -> bool:
        delimiter = b"\r\n" + self._dashes
        if len(self._buffer) < len(delimiter):
            return False
        if not self._buffer.startswith(delimiter):
            raise _invalid("it does not begin with its boundary")
        self._begin = 0
        self._consume(len(delimiter))
        self._step = self._after_boundary
        return True

    def _after_boundary(self) -> bool:
        if len(self._buffer) < 2:
            return False
        mark = bytes(self._buffer[:2])
        self._consume(2)
        if mark == b"--":
            self.is_complete = True
            self._step = self._in_epilogue
        elif mark == b"\r\n":
            self._step = self._in_header
        else:
            raise _invalid("a boundary is not on a line of its own")
        return True

    def _in_header(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", 0, HEADER_BYTES_MAX)
        if end < 0:
            if len(self._buffer) >= HEADER_BYTES_MAX:
                raise _invalid(f"the header of a part is longer than {HEADER_BYTES_MAX} bytes")
            return False
        name, is_file = _read_header(bytes(self._buffer[:end]))
        if len(self.parts) == self._parts_max:
            raise _invalid(f"it has more than {self._parts_max} parts")
        self._consume(end + 2)  # the line break before the content may be that of the next delimiter
        self.parts.append(Part(name=name, is_file=is_file, begin=self._begin, content=self._at + 2))
        self._step = self._in_content
        return True

    def _in_content(self) -> bool:
        found = self._buffer.find(self._dashes)
        if found < 0:
            spare = len(self._buffer) - len(self._dashes) - 1
            if spare > 0:
                self._consume(spare)
            return False
        part = self.parts[-1]
        end = self._at + found - 2
        if found < 2 or self._buffer[found - 2 : found] != b"\r\n" or end < part.content:
            raise _invalid("its boundary is inside of a part")
        self.parts[-1] = Part(name=part.name, is_file=part.is_file, begin=part.begin, content=part.content, end=end)
        self._begin = self._at + found
        self._consume(found + len(self._dashes))
        self._step = self._after_boundary
        return True

    def _in_epilogue(self) -> bool:
        if self._buffer.strip(b"\r\n"):
            raise _invalid("something follows its last boundary")
        self._consume(len(self._buffer))
        return False


def _read_header(header: bytes) -> tuple[str, bool]:
    """Name of a part, and whether it is a file. Raises InvalidRequest."""
    dispositions = []
    for line in header.split(b"\r\n"):
        field = _FIELD.fullmatch(line)
        if field is None:
            raise _invalid("the header of a part cannot be read")
        name, value = field[1].lower(), field[2].strip()
        if name == b"content-disposition":
            dispositions.append(value)
        elif name == b"content-transfer-encoding" and value.lower() not in _PLAIN_ENCODINGS:
            raise _invalid("a part has a transfer encoding")
    if len(dispositions) != 1 or (found := _DISPOSITION.fullmatch(dispositions[0])) is None:
        raise _invalid("a part has no content-disposition, or more than one")
    parameters = [(each[0].lower(), each[1] or each[2]) for each in _PARAMETER.findall(found[1])]
    keys = [key for key, _ in parameters]
    if len(set(keys)) != len(keys) or not _PARAMETERS.issuperset(keys):
        raise _invalid("a part's content-disposition has other parameters than name and filename, or one twice")
    names = [value for key, value in parameters if key == b"name"]
    if len(names) != 1 or _NAME.fullmatch(names[0]) is None or any(key == b"name*" for key, _ in parameters):
        raise _invalid("a part has no plain name")
    return names[0].decode("ascii"), any(key in (b"filename", b"filename*") for key, _ in parameters)


def text_part(boundary: bytes, name: str, value: bytes) -> bytes:
    """A part that is no file, from its delimiter to the end of its content. ``name`` is one that a part may have."""
    return b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b' % (boundary, name.encode("ascii"), value)


def bare_name(name: str) -> str:
    """The name of a part without the brackets of lists."""
    return name.partition("[")[0]


def plain_name(name: str) -> str:
    """The name that servers may take a part's for: without brackets, in small letters."""
    return bare_name(name).casefold()


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The form cannot be read: {reason}.", code="invalid_multipart")
