from __future__ import annotations

import os
from pathlib import Path

import pytest

from container.commands.output_files import choose_target, name_after
from inference.errors import InvalidRequest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "face.mp4"
    path.write_bytes(b"video")
    return path


def make_name(kind: str, source: Path) -> Path:
    path = source.with_name(f"{kind}.mp4")
    match kind:
        case "the same":
            return source
        case "another spelling":
            return source.parent / "." / source.name
        case "symbolic link":
            path.symlink_to(source.name)
        case "hard link":
            os.link(source, path)
        case "link to a link":
            (source.parent / "between").symlink_to(source)
            path.symlink_to("between")
    return path


@pytest.mark.parametrize("kind", ["the same", "another spelling", "symbolic link", "hard link", "link to a link"])
def test_an_input_is_not_overwritten_by_any_name(kind: str, source: Path):
    output = make_name(kind, source)
    with pytest.raises(InvalidRequest, match=r"is the input .*face\.mp4; expected another file, or --force"):
        choose_target(output, (Path("gone.wav"), source), force=False)
    with pytest.raises(InvalidRequest, match=r"expected another file$"):
        choose_target(output, (source,))
    assert choose_target(output, (source,), force=True).samefile(source)


def test_a_link_leads_to_its_target(source: Path, tmp_path: Path):
    (tmp_path / "there").mkdir()
    link, dangling = tmp_path / "link.mp4", tmp_path / "dangling.mp4"
    link.symlink_to("there/old.mp4")
    dangling.symlink_to(tmp_path / "there" / "new.mp4")
    (tmp_path / "there" / "old.mp4").write_bytes(b"old")
    assert choose_target(link, (source,), force=False) == tmp_path / "there" / "old.mp4"
    assert choose_target(dangling, (source,), force=False) == tmp_path / "there" / "new.mp4"
    assert choose_target(tmp_path / "out.mp4", (source,), force=False) == tmp_path / "out.mp4"


@pytest.mark.parametrize("stem", ["x" * 251, "\u00e4" * 125, "a" * 240 + "\u4e2d" * 3])
def test_a_file_made_from_one_with_a_long_name_gets_a_name_that_fits(stem: str, tmp_path: Path):
    source, other = tmp_path / f"{stem}.mp4", tmp_path / f"{stem[:-1]}y.mp4"
    name = name_after(source, ".captioned.mp4")
    assert len(os.fsencode(name)) <= 255
    assert name.endswith(".captioned.mp4")
    assert name.startswith(stem[:50])
    assert name != name_after(other, ".captioned.mp4")
    (tmp_path / name).touch()


def test_a_file_made_from_another_keeps_its_stem():
    assert name_after(Path("a/b c.d.mp4"), ".srt") == "b c.d.srt"
    assert name_after(Path("x" * 250 + ".mp4"), ".json") == "x" * 250 + ".json"
    assert name_after(Path(os.fsdecode(b"lat\xef.mp4")), ".txt") == os.fsdecode(b"lat\xef.txt")
