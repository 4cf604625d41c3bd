"""Files, directories and stdin to checked documents; nothing is written before all of them are read.

A document keeps its file and its place in it, so that every complaint can name them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from weft.ctl.errors import CommandError

if TYPE_CHECKING:
    from weft.model.base import Resource

SUFFIXES = (".yaml", ".yml", ".json")
SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)


class Document(Struct, frozen=True):
    """One resource, and where it was written (`position` counts documents from 0).

    `converted`: it was written as an object of Kubernetes' own API."""

    resource: Resource
    source: str
    position: int
    converted: bool = False


def read_documents(filenames: Sequence[str], namespace: str, recursive: bool, skip_empty: bool) -> list[Document]:
    """Every resource of every file; `namespace` is for those that name none.

    Raises CommandError, and ValidationError for a document that is wrong."""
    documents: list[Document] = []
    for filename in filenames:
        found = False
        for source, text in _texts(filename, recursive):
            if not skip_empty and not any(_parts(text)):
                raise CommandError(f"No resources specified in file {source}")
            documents.extend(split(text, source, namespace))
            found = True
        if not found and not skip_empty:
            raise CommandError(f"No resources specified in directory {filename}")
    return documents


def _texts(filename: str, recursive: bool) -> Iterator[tuple[str, str]]:
    if filename == "-":
        yield "<stdin>", _text(sys.stdin.buffer.read(), "<stdin>")
        return
    path = Path(filename)
    files = sorted(_inside(path, recursive)) if path.is_dir() else [path]
    for file in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}") from error
        yield str(file), _text(content, str(file))


def _text(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise CommandError(f"{source}: not UTF-8 text") from error


def _inside(directory: Path, recursive: bool) -> Iterator[Path]:
    entries = directory.rglob("*") if recursive else directory.iterdir()
    return (entry for entry in entries if entry.suffix in SUFFIXES and entry.is_file())


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """The documents of a text that are more than comments, each with where it begins."""
    ends = [match.start() for match in SEPARATOR.finditer(text)]
    starts = [0, *(end + len("---") for end in ends)]
    for start, end in zip(starts, [*ends, len(text)], strict=True):
        part = text[start:end]
        if any(line.split("#", 1)[0].strip() for line in part.splitlines()):
            yield start, part


def split(text: str, source: str, namespace: str) -> Iterator[Document]:
    """The resources of one text; an object that becomes no resource has no document."""
    from weft.kubernetes import decode_with_origin
    from weft.model.errors import ValidationError

    for position, (start, part) in enumerate(_parts(text)):
        try:
            resources = decode_with_origin(part, source, namespace)
        except ValidationError:
            # Once more with the lines before it, so that the parser names the line of the file.
            try:
                decode_with_origin("\n" * text.count("\n", 0, start) + part, source, namespace)
            except ValidationError as error:
                raise ValidationError(source, position, error.field, error.value, error.expected) from error
            raise
        for resource, converted in resources:
            yield Document(resource, source, position, converted)
