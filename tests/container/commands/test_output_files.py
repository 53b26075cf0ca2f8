from __future__ import annotations

import os
from pathlib import Path

import pytest

from container.commands.output_files import choose_target
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
