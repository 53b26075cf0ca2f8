from __future__ import annotations

import os
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from support.golden_weights import seeded_state
from support.synthetic_frames import talk
from support.video_files import make_video

from container.cli import main
from container.commands.sync import LoopName, ReferenceName, override_options
from inference.dimensions.wav2lip import Wav2LipWidths
from inference.lip_sync import PARITY, SyncOptions
from inference.models import S3FD, Wav2Lip

NARROW = Wav2LipWidths((4, 6, 8, 10, 12, 14, 16), (3, 5, 7, 9, 11), (13, 12, 10, 8, 6, 5, 4), 7)


@pytest.fixture
def parts(
    tmp_path: Path,
    on_disk: Callable[[str, bytes], Path],
    weights_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """Arguments: a face, 0.4 s of audio, and the output; a checkpoint of random weights is in the same folder."""
    home = tmp_path_factory.mktemp("home")  # of the face-box cache
    (home / "weights").symlink_to(weights_cache)
    monkeypatch.setenv("VISEME_DATA_DIR", str(home))
    face = on_disk("a face.mp4", make_video(talk(6)))
    audio = tmp_path / "speech.wav"
    with wave.open(str(audio), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes((8000 * np.sin(np.arange(6400) / 12)).astype(np.int16).tobytes())
    torch.save({"state_dict": dict(seeded_state(Wav2Lip(NARROW)))}, tmp_path / "mine.pth")
    return [str(face), str(audio), "-o", str(tmp_path / "out.mp4")]


def test_every_flag_is_applied(parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    flags = [
        "--checkpoint",
        str(tmp_path / "mine.pth"),
        "--fps",
        "12.5",
        "--resize-factor",
        "2",
        "--pads",
        "0",
        "4",
        "0",
        "0",
    ]
    flags += ["--sheet", str(tmp_path / "sheet.png")]
    assert (
        main(["sync", *parts, *flags, "--nosmooth", "--loop", "restart", "--reference", "each", "--device", "cpu"]) == 0
    )
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5
        assert (container.streams.video[0].width, container.streams.video[0].height) == (180, 144)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "wrote" in printed.err
    assert "5 frames" in printed.err
    assert len(list((Path(os.environ["VISEME_DATA_DIR"]) / "tracks").iterdir())) == 1


def test_the_default_checkpoint_is_the_starter(parts: list[str], tmp_path: Path, capsys):
    assert main(["sync", *parts, "--device", "cpu"]) == 0
    printed = capsys.readouterr().err
    assert "warning" not in printed
    assert "10 frames" in printed
    assert (tmp_path / "out.mp4").is_file()


def test_flags_override_the_defaults_and_parity():
    changed = override_options(PARITY, nosmooth=True, loop=LoopName.pingpong, reference=ReferenceName.steady)
    assert changed == replace(PARITY, smoothing="none", loop="pingpong", reference="steady")
    assert override_options(SyncOptions(), nosmooth=False, loop=None, reference=None) == SyncOptions()


def test_parity_requires_upstreams_detector(parts: list[str], tmp_path: Path, capsys):
    flags = [*parts, "--checkpoint", str(tmp_path / "mine.pth"), "--device", "cpu", "--parity"]
    assert main(["sync", *flags]) == 2
    assert "s3fd.pth does not come with Viseme" in capsys.readouterr().err
    torch.save(dict(seeded_state(S3FD())), tmp_path / "s3fd.pth")
    assert main(["sync", *flags, "--s3fd", str(tmp_path / "s3fd.pth"), "--resize-factor", "4"]) == 0
    assert "7 frames, 0.28 s, 90x72" in capsys.readouterr().err  # upstream drops the last of the audio's 10


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--resize-factor", "3"], "expected 1, 2 or 4"), (["--fps", "0"], "fps"), (["--face", "x"], "--face")],
)
def test_an_invalid_option_exits_2(parts: list[str], flags: list[str], words: str, capsys):
    assert main(["sync", *parts, *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_deadline_leaves_no_video(parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("VISEME_ENCODE_DEADLINE_S", "0.0001")
    assert main(["sync", *parts, "--checkpoint", str(tmp_path / "mine.pth"), "--device", "cpu"]) == 1
    assert "encode took over 0.0001 s, which is its limit" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()


def test_an_html_page_as_checkpoint_exits_2(parts: list[str], tmp_path: Path, capsys):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>sign in</html>")
    assert main(["sync", *parts, "--checkpoint", str(tmp_path / "page.pth"), "--device", "cpu"]) == 2
    assert "HTML page" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()


def test_an_input_is_overwritten_only_by_force(parts: list[str], tmp_path: Path, capsys):
    face = Path(parts[0])
    before = face.read_bytes()
    flags = ["--checkpoint", str(tmp_path / "mine.pth"), "--device", "cpu"]
    assert main(["sync", *parts[:2], "-o", str(face), *flags]) == 2
    assert "is the input" in capsys.readouterr().err
    os.link(face, tmp_path / "face.png")
    assert main(["sync", *parts, *flags, "--sheet", str(tmp_path / "face.png")]) == 2
    assert "face.png: is the input" in capsys.readouterr().err
    assert face.read_bytes() == before
    assert main(["sync", *parts[:2], "-o", str(face), *flags, "--force"]) == 0
    with av.open(str(face)) as container:
        assert {stream.type for stream in container.streams} == {"video", "audio"}


def test_a_symbolic_link_is_written_through(parts: list[str], tmp_path: Path, capsys):
    (tmp_path / "there").mkdir()
    link = tmp_path / "out.mp4"
    link.symlink_to("there/target.mp4")
    assert main(["sync", *parts, "--checkpoint", str(tmp_path / "mine.pth"), "--device", "cpu"]) == 0
    assert link.is_symlink()
    assert (tmp_path / "there" / "target.mp4").stat().st_size > 1000
    assert "target.mp4: 10 frames" in capsys.readouterr().err


def test_one_of_several_outputs_is_no_link(parts: list[str], tmp_path: Path, capsys):
    (tmp_path / "out.mine.mp4").symlink_to("target.mp4")
    flags = ["--checkpoint", "starter", "--checkpoint", str(tmp_path / "mine.pth"), "--device", "cpu"]
    assert main(["sync", *parts, *flags]) == 2
    assert "out.mine.mp4: is a symbolic link; with several checkpoints" in capsys.readouterr().err


def test_the_longest_output_name(parts: list[str], tmp_path: Path):
    path = tmp_path / ("x" * 251 + ".mp4")
    flags = ["--checkpoint", str(tmp_path / "mine.pth"), "--device", "cpu"]
    assert main(["sync", *parts[:2], "-o", str(path), *flags]) == 0
    assert path.stat().st_size > 1000


def test_a_name_that_is_too_long_with_the_checkpoints_is_refused_first(parts: list[str], tmp_path: Path, capsys):
    path = tmp_path / ("x" * 246 + ".mp4")  # 255 bytes with ".mine", and more with ".starter"
    flags = ["--checkpoint", str(tmp_path / "mine.pth"), "--checkpoint", "starter", "--device", "cpu"]
    assert main(["sync", *parts[:2], "-o", str(path), *flags]) == 2
    assert "a name of 258 bytes; expected at most 255" in capsys.readouterr().err


def test_silence_is_reported(parts: list[str], tmp_path: Path, capsys):
    with wave.open(parts[1], "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes(bytes(6400))
    assert main(["sync", *parts, "--checkpoint", str(tmp_path / "mine.pth"), "--device", "cpu"]) == 0
    assert capsys.readouterr().err.count("warning: silent_audio\n") == 1


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine may have NVENC")
def test_an_encoder_that_cannot_be_used_is_refused_before_work(parts: list[str], tmp_path: Path, capsys):
    flags = ["--checkpoint", str(tmp_path / "none.pth"), "--device", "cpu", "--encoder", "h264_nvenc"]
    assert main(["sync", *parts, *flags]) != 0
    assert capsys.readouterr().err == (
        "viseme: encoder h264_nvenc: this machine has no NVIDIA GPU; choose auto or libx264\n"
    )
