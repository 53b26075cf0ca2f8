"""JSON without its long strings."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from container.jobs.api import shortened_json
from container.jobs.api.shortened_json import PLACEHOLDER, read_shortened

ALPHABET = ['"', "\\", "a", "é", "\n", "{", ","]


@pytest.fixture
def body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shortened_json, "MAX_STRING_BYTES", 12)
    return tmp_path / "body"


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 64])
def test_only_long_strings_are_replaced(body: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int):
    """Wherever a chunk ends, also within an escape."""
    monkeypatch.setattr(shortened_json, "CHUNK_BYTES", chunk_bytes)
    rng = random.Random(chunk_bytes)
    for _ in range(40):
        values = ["".join(rng.choices(ALPHABET, k=rng.randrange(12))) for _ in range(6)]
        body.write_text(json.dumps({str(i): value for i, value in enumerate(values)}))
        lengths = [len(json.dumps(value)) - 2 for value in values]
        expected = [value if n <= 12 else PLACEHOLDER.decode() for value, n in zip(values, lengths, strict=True)]
        found = read_shortened(body, 10_000)
        assert found is not None
        assert list(json.loads(found).values()) == expected


@pytest.mark.parametrize("text", ['{"a": "b', '{"a": "b\\', '{"a": "' + "b" * 40, '{"a": \\"b"}', "[1, 2", '"', "\\"])
def test_what_is_no_json_remains_none(body: Path, text: str):
    body.write_text(text)
    found = read_shortened(body, 10_000)
    assert found is not None
    with pytest.raises(json.JSONDecodeError):
        json.loads(found)


def test_what_is_large_without_long_strings_is_not_returned(body: Path):
    body.write_text(json.dumps(["short"] * 1000))
    assert read_shortened(body, 5000) is None
    body.write_text(json.dumps([""] * (shortened_json.MAX_STRINGS + 1)))
    assert read_shortened(body, 100_000) is None
    body.write_text(json.dumps(["long" * 1000] * 100))
    assert read_shortened(body, 5000) is not None


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_wide_encodings_are_left_as_they_are(body: Path, encoding: str):
    """As PowerShell's redirection writes files: a placeholder would shift all that follows it."""
    body.write_text(json.dumps({"video": "b" * 400}), encoding)
    assert read_shortened(body, 10_000) is None
