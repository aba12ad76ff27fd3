"""What a folder claims to hold: every file parsed (or remembered), one candidate per object.

Invariant: an object leaves this picture only when its file was read whole without it, or is known to be gone. A file
or folder that cannot be read keeps what it was known to hold (``retained``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from gateway.model import Frozen, Problem
from gateway.registry.files import FolderFile, Listing, UnreadableFile, read_file
from gateway.registry.parse import Candidate, ObjectId, ParsedFile, content_digest, parse_file

_UNKNOWN = ParsedFile(digest=b"", whole=False)


class Claims(Frozen, frozen=True):
    """One candidate per object, and the objects that are known only from before."""

    winners: Mapping[ObjectId, Candidate]
    retained: frozenset[ObjectId]
    duplicates: tuple[Candidate, ...]
    problems: tuple[Problem, ...]


def parse_folder(
    folder: Path, listing: Listing, previous: Mapping[str, ParsedFile], now: float
) -> dict[str, ParsedFile]:
    """Parse every file of the listing, reusing what was parsed of files that are the same."""
    files: dict[str, ParsedFile] = {}
    for file in listing.files:
        before = previous.get(file.name)
        marks = file.marks if file.at_rest(now) else ()
        if before is not None and marks and marks == before.marks:
            files[file.name] = before
        else:
            parsed = _read_and_parse(folder, file, before)
            files[file.name] = replace(parsed, marks=marks if parsed.readable else ())
    for name, before in previous.items():
        if name not in files and listing.lost(name):
            files[name] = _keep(_UNKNOWN, before)
    return dict(sorted(files.items()))


def _read_and_parse(folder: Path, file: FolderFile, before: ParsedFile | None) -> ParsedFile:
    source = str(folder / file.name)
    try:
        if file.error:
            raise UnreadableFile(file.error)
        content = read_file(folder, file.name)
    except UnreadableFile as error:
        problem = Problem(source=source, object="", field="", reason=str(error))
        return _keep(replace(_UNKNOWN, problems=(problem,)), before)
    if before is not None and before.digest == content_digest(content):
        return before
    return _keep(parse_file(file.name, source, content), before)


def _keep(parsed: ParsedFile, before: ParsedFile | None) -> ParsedFile:
    """Let a file that is not whole hold on to what it held."""
    if parsed.whole or before is None:
        return parsed
    return replace(parsed, held=parsed.held | before.held)


def claims(folder: Path, listing: Listing, files: Mapping[str, ParsedFile]) -> Claims:
    """Pick one candidate per object: the first in path order; every later one is a problem that names both files."""
    problems = [
        Problem(source=str(folder / unlisted.name), object="", field="", reason=unlisted.reason)
        for unlisted in listing.unlisted
    ]
    winners: dict[ObjectId, Candidate] = {}
    duplicates: list[Candidate] = []
    held: set[ObjectId] = set()
    for file in files.values():
        problems += file.problems
        if not file.whole:
            held |= file.held
        for candidate in file.candidates:
            winner = winners.setdefault(candidate.id, candidate)
            if winner is not candidate:
                duplicates.append(candidate)
                problems.append(_duplicate(candidate, winner))
    return Claims(
        winners=winners,
        retained=frozenset(held - winners.keys()),
        duplicates=tuple(duplicates),
        problems=tuple(problems),
    )


def _duplicate(candidate: Candidate, winner: Candidate) -> Problem:
    return Problem(
        source=candidate.source,
        object=str(candidate.id),
        field="metadata.name",
        reason=f"is already defined in {winner.source}"
        + (", earlier in the file" if winner.source == candidate.source else ", which wins"),
    )
