"""The multipart form of POST /v2/generate: media as files, and the other fields as text or JSON.

Source: https://sync.so/docs/api-reference/api/generate-api/create-with-files.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import FormParser, parse_options_header

from container.http.generation_errors import INVALID_INPUT, GenerationRejected
from inference.errors import InvalidRequest, MediaTooLarge
from inference.requests.body import check_structure, shorten

FORM = "multipart/form-data"
FILES = ("video", "image", "audio")  # one of each at most
TEXTS = ("model", "webhookUrl", "outputFileName")
OBJECTS = ("options", "segments", "dubParams", "dialogueEdit")
INPUT = "input"  # a list, or one field for each of its items
MAX_PARTS = 35
MAX_FILE_BYTES = 20 << 20
CHUNK_BYTES = 1 << 18


@dataclass
class GenerationForm:
    """The parts of a form. texts: values of each field that is no file, in their order."""

    files: dict[str, bytes] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    n_parts: int = 0

    @classmethod
    def read(cls, body: Path, content_type: str) -> GenerationForm:
        """Parse a form in a file. Raises: InvalidRequest if it is malformed; MediaTooLarge if a file is."""
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise InvalidRequest(f"content type {shorten(content_type)}: expected a boundary")
        form = cls()
        limits = {"MAX_MEMORY_FILE_SIZE": body.stat().st_size + 1}  # bounded already: not spilled to disk once more
        try:
            parser = FormParser(FORM, form.add_text, form.add_file, boundary=boundary, config=limits)
            with contextlib.closing(parser), body.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    parser.write(chunk)
                parser.finalize()
        except (FormParserError, ValueError) as err:
            raise InvalidRequest(f"the form is malformed: {shorten(str(err))}") from err
        return form

    def add_text(self, part: Any) -> None:
        name = self._count(part)
        self.texts.setdefault(name, []).append((part.value or b"").decode("utf-8", "replace"))

    def add_file(self, part: Any) -> None:
        name = self._count(part)
        if name not in FILES or name in self.files:
            raise GenerationRejected(INVALID_INPUT, f"file {shorten(name)}: expected one each of {', '.join(FILES)}")
        part.file_object.seek(0)
        content = part.file_object.read()
        part.close()
        if len(content) > MAX_FILE_BYTES:
            raise MediaTooLarge(f'"{name}": a file of {len(content)} bytes; at most {MAX_FILE_BYTES}, or any by url')
        if not content:
            raise GenerationRejected(INVALID_INPUT, f'"{name}": the file is empty')
        self.files[name] = content

    def fields(self) -> dict[str, Any]:
        """Return the fields as they are in JSON; files are inputs without a URL. Raises: GenerationRejected."""
        known = (*TEXTS, *OBJECTS, INPUT)
        if unknown := set(self.texts) - set(known):
            found = shorten(min(unknown))
            raise GenerationRejected(INVALID_INPUT, f"{found}: no such field; known: {', '.join(known)}")
        fields: dict[str, Any] = {name: self.texts[name][-1] for name in TEXTS if name in self.texts}
        fields |= {name: load_json(self.texts[name][-1], name) for name in OBJECTS if name in self.texts}
        items = [load_json(text, INPUT) for text in self.texts.get(INPUT, [])]
        inputs = items[0] if len(items) == 1 and isinstance(items[0], list) else items
        return fields | {INPUT: [*inputs, *({"type": name} for name in sorted(self.files))]}

    def _count(self, part: Any) -> str:
        self.n_parts += 1
        if self.n_parts > MAX_PARTS:
            raise InvalidRequest(f"the form has over {MAX_PARTS} parts")
        name: str = (part.field_name or b"").decode("utf-8", "replace")
        return name


def load_json(text: str, label: str) -> Any:
    """Parse the JSON in a field. Raises: InvalidRequest."""
    check_structure(text, label)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:
        raise InvalidRequest(f'"{label}": not JSON ({err}); expected JSON in this field of the form') from err
