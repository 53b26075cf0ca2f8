"""`viseme sync`: lip sync of a face to an audio file."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from container.commands.console import (
    DeviceOption,
    FaceOption,
    PrecisionOption,
    ThreadsOption,
    VideoEncoderOption,
    make_progress_callback,
    parse_face,
    print_note,
    report_progress,
)
from container.commands.output_files import ForceOption, choose_target
from container.commands.sync_segments import parse_segment
from container.commands.sync_speaker import parse_speaker
from inference.errors import InvalidRequest

# The engines are imported in the functions that use them: torch takes a second to import, and neither help nor
# completion must wait for it.
if TYPE_CHECKING:
    from inference.lip_sync import LipSyncer, SyncOptions, SyncResult
    from inference.settings import Settings


class EnhanceName(StrEnum):
    """Ways to sharpen the generated mouths."""

    none = "none"
    video = "video"
    swin2sr = "swin2sr"


class ReferenceName(StrEnum):
    """Frames that the network is given as the whole face."""

    steady = "steady"
    each = "each"


class LoopName(StrEnum):
    """Ways to continue a video that is shorter than the audio."""

    pingpong = "pingpong"
    restart = "restart"


class SyncModeName(StrEnum):
    """What to do if audio and video differ in length."""

    loop = "loop"
    bounce = "bounce"
    cut_off = "cut_off"
    silence = "silence"
    remap = "remap"


FaceArgument = Annotated[Path, typer.Argument(metavar="FACE", help="Video or image of a face.")]
AudioArgument = Annotated[Path, typer.Argument(metavar="AUDIO", help="Speech: any audio file, or video with audio.")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", metavar="OUT.mp4", help="Video to write.")]
CheckpointOption = Annotated[
    list[str] | None,
    typer.Option(
        "--checkpoint",
        metavar="NAME|PATH",
        help="Wav2Lip weights: starter, a file, s3://bucket/key, or wav2lip, wav2lip_gan from SM_MODEL_DIR or the "
        "cache. Repeatable: one pass writes OUT.NAME.mp4 for each.",
    ),
]
FpsOption = Annotated[
    float | None,
    typer.Option("--fps", help="Frames per second. Default: those of the video; 25 for an image, or below 10."),
]
ResizeFactorOption = Annotated[
    int, typer.Option("--resize-factor", help="Divide the frames' width and height by 1, 2 or 4.")
]
PadsOption = Annotated[
    tuple[int, int, int, int],
    typer.Option("--pads", metavar="T B L R", help="Pixels added to the face box at the top, bottom, left and right."),
]
NoSmoothOption = Annotated[bool, typer.Option("--nosmooth", help="Do not smooth the face box over time.")]
LoopOption = Annotated[
    LoopName | None,
    typer.Option("--loop", help="How to continue a video that is shorter than the audio. Default: pingpong."),
]
SyncModeOption = Annotated[
    SyncModeName | None,
    typer.Option(
        "--sync-mode",
        help="If audio and video differ in length. loop, bounce: repeat the video until the audio ends. cut_off: end "
        "with the shorter one. silence: pad the audio to the end of the video. remap: slow down or speed up the video. "
        "Default: as long as the audio, see --loop.",
    ),
]
SegmentOption = Annotated[
    list[str] | None,
    typer.Option(
        "--segment",
        metavar="START-END[@AUDIO[:FROM-TO]]",
        help="Part of the video that speaks, in seconds, such as 2-5 or 2-5@1:0-3. AUDIO: 0 for AUDIO, from 1 up for "
        "--more-audio. Without END or TO: to the end. Repeatable; the output is as long as the video.",
    ),
]
MoreAudioOption = Annotated[
    list[Path] | None,
    typer.Option("--more-audio", metavar="AUDIO", help="Another audio file for segments, counted from 1. Repeatable."),
]
SpeakerOption = Annotated[
    str | None,
    typer.Option(
        "--speaker",
        metavar="auto|FRAME:X,Y|BOXES.json",
        help="Which of several faces. auto: the one that speaks in the video. FRAME:X,Y: the one at that pixel of that "
        "frame, from 0. BOXES.json: a list of null or a list of x1, y1, x2, y2 for each frame.",
    ),
]
ReferenceOption = Annotated[
    ReferenceName | None,
    typer.Option(
        "--reference",
        help="Frame given to the network as the whole face. steady: one frame for as long as it fits. each: the "
        "frame itself. Default: steady.",
    ),
]
EnhanceOption = Annotated[
    EnhanceName,
    typer.Option(
        "--enhance",
        help="Sharper mouths. video: with detail from the video's own mouths. swin2sr: by super-resolution, at seconds "
        "per frame; downloads weights from the Hub (Apache-2.0).",
    ),
]
ParityOption = Annotated[
    bool, typer.Option("--parity", help="Reproduce upstream's inference.py, including its faults; needs s3fd.pth.")
]
S3fdOption = Annotated[
    Path | None, typer.Option("--s3fd", metavar="PATH", help="Upstream's face detector, for --parity.")
]
SheetOption = Annotated[
    Path | None,
    typer.Option("--sheet", metavar="PNG", help="Also write an image of twelve moments above the audio's spectrogram."),
]


def sync(
    face: FaceArgument,
    audio: AudioArgument,
    output: OutputOption,
    checkpoint: CheckpointOption = None,
    fps: FpsOption = None,
    resize_factor: ResizeFactorOption = 1,
    pads: PadsOption = (0, 10, 0, 0),
    nosmooth: NoSmoothOption = False,
    loop: LoopOption = None,
    sync_mode: SyncModeOption = None,
    segment: SegmentOption = None,
    more_audio: MoreAudioOption = None,
    reference: ReferenceOption = None,
    which: FaceOption = "largest",
    speaker: SpeakerOption = None,
    enhance: EnhanceOption = EnhanceName.none,
    parity: ParityOption = False,
    s3fd: S3fdOption = None,
    sheet: SheetOption = None,
    force: ForceOption = False,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    encoder: VideoEncoderOption = None,
) -> None:
    """Lip-sync a face to an audio file and write the video.

    The video is as long as the audio, unless --sync-mode or --segment says
    otherwise, and keeps its quality. The file appears when it is complete; if anything fails,
    nothing is written.
    """
    chosen_face = parse_face(which)
    if sheet is not None:
        from container.visuals.video_sheet import check_sheet_path

        check_sheet_path(sheet)

    from inference.backends.threads import limit_threads
    from inference.lip_sync import PARITY, Pads, SyncOptions
    from inference.settings import Settings

    settings = Settings.from_env().with_overrides(encoder=encoder, threads=threads)
    limit_threads(settings.wanted_threads)
    options = replace(
        PARITY if parity else SyncOptions(),
        fps=fps,
        resize_factor=resize_factor,
        pads=Pads(*pads),
        face=chosen_face,
        enhance=enhance.value,
    )
    options = override_options(options, nosmooth=nosmooth, loop=loop, reference=reference)
    options = replace(
        options,
        sync_mode=None if sync_mode is None else sync_mode.value,
        active_speaker=None if speaker is None else parse_speaker(speaker),
        segments=tuple(parse_segment(text) for text in segment or ()),
    )
    audios = [audio, *(more_audio or ())]
    if sheet is not None:
        sheet = choose_target(sheet, (face, *audios), force=force)
    syncer = load_syncer(settings, checkpoint, s3fd, device, precision)
    target = choose_video_target(syncer, output, (face, *audios), force=force)
    result = write_video(syncer, face, audios, options, target)
    print_result(result, syncer.warnings)
    if sheet is not None:
        write_sheets(result, sheet, settings)


def load_syncer(
    settings: Settings, checkpoints: list[str] | None, s3fd: Path | None, device: str | None, precision: str | None
) -> LipSyncer:
    """Load the networks the options name, else those of the model folder, else the starter's."""
    from inference.lip_sync import BoxCache, LipSyncer

    return LipSyncer(
        checkpoints=checkpoints or None if checkpoints or settings.model_dir else ("starter",),
        device=device or settings.device,
        precision=precision or settings.precision,
        s3fd=s3fd,
        settings=settings,
        tracks=BoxCache(settings.boxes_cache),
    )


def choose_video_target(syncer: LipSyncer, output: Path, inputs: tuple[Path, ...], *, force: bool) -> Path:
    """Return the path to write; with several checkpoints, each adds its name to it.

    Raises: InvalidRequest if a video would overwrite an input, or replace one of several symbolic links.
    """
    from inference.lip_sync.outputs import name_outputs

    names = [one.name for one in syncer.generators]
    if len(names) == 1:
        return choose_target(output, inputs, force=force)
    for path in name_outputs(output, names):
        if choose_target(path, inputs, force=force) != path:
            raise InvalidRequest(f"{path}: is a symbolic link; with several checkpoints, expected a file to write")
    return output


def write_video(syncer: LipSyncer, face: Path, audios: list[Path], options: SyncOptions, output: Path) -> SyncResult:
    """Write the video, with a progress bar."""
    for warning in syncer.warnings:
        print_note(f"warning: {warning}")
    with report_progress() as progress:
        task = progress.add_task(face.name, total=None)
        return syncer.sync(face, audios, options, output, make_progress_callback(progress, task))


def override_options(
    options: SyncOptions, *, nosmooth: bool, loop: LoopName | None, reference: ReferenceName | None
) -> SyncOptions:
    """Return the options with those changed that are given on the command line, on top of the defaults or PARITY."""
    if nosmooth:
        options = replace(options, smoothing="none")
    if reference is not None:
        options = replace(options, reference=reference.value)
    return options if loop is None else replace(options, loop=loop.value)


def write_sheets(result: SyncResult, sheet: Path, settings: Settings) -> None:
    """Write one contact sheet per video; if there are several, with the checkpoint's name before the suffix."""
    from container.visuals.video_sheet import write_video_sheet
    from inference.faces.load import load_landmarker

    landmarker = load_landmarker("mediapipe", settings.weight_sources)
    for one in result.outputs:
        assert one.path is not None
        path = sheet if len(result.outputs) == 1 else sheet.with_name(f"{sheet.stem}.{one.model}{sheet.suffix}")
        write_video_sheet(one.path, path, landmarker, settings.media_limits)
        print_note(f"wrote {path}")


def print_result(result: SyncResult, printed: tuple[str, ...]) -> None:
    """Print the videos written, how many frames were left unchanged, and the warnings not printed yet."""
    for warning in result.warnings:
        if warning not in printed:
            print_note(f"warning: {warning}")
    for one in result.outputs:
        print_note(f"wrote {one.path}: {one.num_frames} frames, {one.duration_s:g} s, {result.width}x{result.height}")
    if result.frames_without_face:
        print_note(f"{result.frames_without_face} of {result.num_frames} frames show no face and are unchanged")
