"""Make the weights that are bundled with Viseme, or some of them, by their recipes.

    python -m training.make_weights [reading ...] -o build/weights [--grid GRID] [--kokoro KOKORO] [--start WEIGHTS]
                                    [--tiny]

GRID: folder of the GRID clips. KOKORO: folder with kokoro.onnx and voices, as `training.common.kokoro` explains.
WEIGHTS: the weights that lip reading starts from; without them it starts from random ones. A recipe resumes where it
stopped, and writes to a folder of its own. --tiny takes every step of each recipe on a few clips, in a minute or two,
as a smoke test: the weights are unusable. It needs no data but clips of the synthetic speaker.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inference.avatar.starter import LOOK_AHEAD_WINDOWS
from training.avatar import assemble, train_audio_encoder, train_unet
from training.common import face_packs, kokoro
from training.common.espeak import Espeak, has_library
from training.common.synthetic_clips import FIRST_SEED
from training.lip_reading import crop_clips, render_clips
from training.lip_reading import train as train_reading
from training.lip_reading.interpolate import interpolate
from training.lip_sync import export_visemes, join_halves, train_audio
from training.lip_sync import train as train_sync


@dataclass(frozen=True)
class MakeOptions:
    """Options of every recipe. folder: its own. grid, kokoro: folders of data; None if they are not available.

    start: weights that lip reading starts from; None for random ones.
    """

    folder: Path
    grid: Path | None
    is_tiny: bool
    kokoro: Path | None = None
    start: Path | None = None


NEVER_TRAINED_ON = ("s20", "s23", "s26", "s33")  # speakers of GRID that measure people never seen
N_RENDERED = 700  # of lip reading, if there are no clips of GRID
READING_STRANGER = "s32"  # speaker that selects among checkpoints of lip reading
MORE_SEED = 3_000_000  # of the rendered people of the second training
NEW_SHARE = 0.7  # of the way from the weights before the second training to those after it
VISEMES_FILE = "visemes.safetensors"
GRID_FOLDERS = ("talking", "people")  # of clips with whole faces
N_KOKORO, N_HELD_OUT, SEED = 500, 40, 5  # utterances of Kokoro to train on and to score on; their seed


@dataclass(frozen=True)
class ReadingStage:
    """One training of lip reading, on GRID's s1 and rendered people; it starts from the weights of the stage before."""

    name: str
    epochs: int
    minutes: float | None = None
    n_rendered: int = 0
    first_seed: int = FIRST_SEED
    peak_rate: float = 6e-4
    dropout: float = 0.12
    joined: float = 0.35
    score_every: int = 1


# As the weights that ship were made. Not here: 26 clips of other people in the first stage, in the fourth the exchange
# of 400 rendered people for new ones, and the seeds of the people of the fifth.
READING_STAGES = (
    ReadingStage("scratch", 21),
    ReadingStage("restart", 10),
    ReadingStage("frames", 14, 50, peak_rate=5e-4, dropout=0.15),
    ReadingStage("rendered", 13, 74, 700, peak_rate=5e-4, dropout=0.15),
    ReadingStage(
        "new_rendered",
        200,
        97,
        300,
        first_seed=2_000_000,
        peak_rate=4e-4,
        dropout=0.1,
        joined=0.06,
        score_every=2,
    ),
)


def make_reading(options: MakeOptions) -> Path:
    """Train LipCoordNet in stages, or continue from `options.start` with more people."""
    if options.start:
        return train_more_people(options, options.start)
    first, *others = READING_STAGES
    weights = train_stage(options, first, None)
    for stage in others:
        weights = train_stage(options, stage, weights)
    return weights


def train_stage(options: MakeOptions, stage: ReadingStage, start: Path | None) -> Path:
    """Train one stage; one that has neither GRID nor rendered people gets some of these."""
    mouths = [options.grid / "mouths"] if options.grid and not options.is_tiny else []
    if stage.n_rendered or not mouths:
        packs = options.folder / f"rendered_{stage.first_seed}"
        n_clips = 4 if options.is_tiny else stage.n_rendered or N_RENDERED
        render_clips.make_packs(packs, n_clips, stage.first_seed)
        mouths.append(packs)
    recipe = train_reading.LipReadingRecipe(
        tuple(mouths),
        options.folder / stage.name,
        start,
        epochs=stage.epochs,
        minutes=stage.minutes,
        peak_rate=stage.peak_rate,
        dropout=stage.dropout,
        joined=stage.joined,
        score_every=stage.score_every,
    )
    train_reading.train(replace(recipe, epochs=1, held_out=1) if options.is_tiny else recipe)
    return recipe.run / "model.safetensors"


def train_more_people(options: MakeOptions, start: Path) -> Path:
    """Continue with clips of more people and newly rendered ones, then go only a part of the way from `start`.

    No clip that measures is trained on, but those of `clips.csv` that show the people of the training.
    """
    heads, people, others, run = (
        options.folder / name for name in ("more_rendered", "people", "others", "more_people")
    )
    render_clips.make_packs(heads, 4 if options.is_tiny else 200, MORE_SEED, of_each=2)
    recipe = train_reading.LipReadingRecipe(
        (heads,), run, start, epochs=1, held_out=1, shares=(1,), spliced=(0.5,), disguised=0.4, frozen=1
    )
    if options.grid and not options.is_tiny:
        clips, people_clips = (options.grid / f"{name}.csv" for name in ("clips", "people"))
        crop_clips.make_packs(people, people_clips, options.grid / "people_words.csv", leave_out=NEVER_TRAINED_ON)
        crop_clips.make_packs(others, clips, options.grid / "words.csv", leave_out=("s1", *NEVER_TRAINED_ON))
        recipe = replace(
            recipe,
            mouths=(options.grid / "mouths", people, others, heads),
            minutes=48,
            epochs=20,
            held_out=40,
            peak_rate=3e-4,
            dropout=0.15,
            joined=0.06,
            threads=1,
            score_every=2,
            shares=(0.32, 0.38, 0.08, 0.22),  # the speakers about equally often
            spliced=(0, 1, 0, 0),  # all clips in `people` begin with BIN BLUE
            unscored=(others,),
            strangers=(READING_STRANGER,),
            leave_out=write_names((clips, options.grid / "eval.csv"), options.folder / "leave_out.txt"),
        )
    train_reading.train(recipe)
    output = options.folder / "model.safetensors"
    interpolate(start, run / "model.safetensors", NEW_SHARE, output)
    return output


def write_names(tables: Sequence[Path], path: Path) -> Path:
    """Write the names of the clips of s1 in some tables as packs of mouths have them, one a line."""
    rows = [row for table in tables for row in csv.DictReader(table.read_text().splitlines())]
    names = [Path(row["file"]).stem.removeprefix("s1_") for row in rows if row["file"].startswith("s1_")]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))
    return path


def make_avatar(options: MakeOptions) -> Path:
    """Train the audio networks and the U-Net of the rendered portrait, and assemble them.

    The voices are espeak-ng's if it is installed, Kokoro's, and those of GRID's people. Frames look one window ahead,
    as `inference.avatar.starter` states in the avatar's manifest.
    """
    audio, unet, assembled = (options.folder / name for name in ("audio", "unet", "assembled"))
    unet_recipe = train_unet.UNetRecipe(unet, steps=1634, peak_rate=1.5e-3)
    audio_recipe = train_audio_encoder.AudioEncoderRecipe(audio, look_ahead=LOOK_AHEAD_WINDOWS)
    if options.is_tiny:
        audio_recipe = replace(audio_recipe, n_utterances=2, steps=1, batch=8)
        unet_recipe = replace(unet_recipe, n_scored=1, steps=1, batch=1)
    else:
        packs = tuple(pack_real_faces(options))
        speech, held_out_speech = make_speech(options), make_speech(options, held_out=True)
        audio_recipe = replace(audio_recipe, packs=packs, speech=speech, held_out_speech=held_out_speech)
        if not has_library():
            audio_recipe = replace(audio_recipe, n_utterances=0)
    train_audio_encoder.train(audio_recipe)
    train_unet.train(unet_recipe)
    assemble.write_avatar(
        assemble.AssemblyOptions(audio / "audio_network.safetensors", unet / "unet.safetensors", assembled)
    )
    return assembled / "network.safetensors"


@dataclass(frozen=True)
class DrawingStage:
    """One training of the half of Wav2Lip that draws; it starts from the weights of the stage before."""

    name: str
    steps: int
    peak_rate: float
    lips_weight: float


# The later two learn from faces as the one before draws them.
DRAWING_STAGES = (
    DrawingStage("drawing", 6000, 1.5e-3, 0.05),
    DrawingStage("pressed", 1400, 4e-4, 0.15),
    DrawingStage("refined", 800, 3e-4, 0.2),
)


def make_sync(options: MakeOptions) -> Path:
    """Train the two halves of a narrow Wav2Lip, and join them. Also write the network of visemes, its speech encoder.

    The audio half learns from GRID faces, rendered people, Kokoro's voices, and espeak-ng's if it is installed; the
    drawing half from rendered people and GRID faces.
    """
    folder, is_tiny = options.folder, options.is_tiny
    packs = [folder / "rendered"]
    face_packs.make_packs(packs[0], None, 2 if is_tiny else 250)
    if not is_tiny:
        packs += pack_real_faces(options)
    speech = None if is_tiny else make_speech(options)
    audio = train_audio.AudioHalfRecipe(tuple(packs), folder / "audio", speech)
    if not has_library():
        audio = replace(audio, n_utterances=0)
    if is_tiny:
        audio = replace(audio, steps=1, batch=2, n_utterances=0)
    train_audio.train(audio)
    encoder, output = audio.run / "encoder.safetensors", folder / "model.safetensors"
    export_visemes.export(encoder, folder / VISEMES_FILE)
    drawing = train_sync.LipSyncRecipe(tuple(packs), folder / "run", encoder)
    if is_tiny:
        drawing = replace(drawing, batch=2, lip_steps=1)
    drawn = train_drawing(drawing, is_tiny=is_tiny)
    join_halves.join(drawn, encoder, drawing, output)
    return output


def train_drawing(recipe: train_sync.LipSyncRecipe, *, is_tiny: bool) -> Path:
    """Train the half that draws, in stages with folders in that of the recipe; return the weights of the last."""
    weights = None
    for stage in DRAWING_STAGES:
        one = replace(
            recipe,
            run=recipe.run / stage.name,
            start=weights,
            steps=1 if is_tiny else stage.steps,
            peak_rate=stage.peak_rate,
            lips_weight=stage.lips_weight,
        )
        train_sync.train(one)
        weights = one.run / "model.safetensors"
    assert weights is not None
    return weights


def pack_real_faces(options: MakeOptions) -> list[Path]:
    """Make packs of the faces of GRID; return their folders, none if the clips are not available."""
    if options.grid is None:
        return []
    for name in GRID_FOLDERS:
        face_packs.make_packs(options.folder / name, options.grid / name, 0, leave_out=NEVER_TRAINED_ON)
    return [options.folder / name for name in GRID_FOLDERS]


def make_speech(options: MakeOptions, *, held_out: bool = False) -> Path | None:
    """Synthesise Kokoro's speech; return its folder, or None if the model is not available.

    held_out: by the voices that are never trained on, to score on.
    """
    if options.kokoro is None:
        return None
    folder = options.folder / ("kokoro_held_out" if held_out else "kokoro")
    model, voices = options.kokoro / "kokoro.onnx", options.kokoro / "voices"
    n_utterances, names = (N_HELD_OUT, kokoro.HELD_OUT_VOICES) if held_out else (N_KOKORO, kokoro.VOICES)
    kokoro.make_packs(folder, kokoro.Kokoro(model, voices, Espeak()), n_utterances, SEED, names)
    return folder


# Each returns the file to bundle.
RECIPES: dict[str, Callable[[MakeOptions], Path]] = {
    "reading": make_reading,
    "sync": make_sync,
    "avatar": make_avatar,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the weights that the command line names, one after another."""
    parser = argparse.ArgumentParser(prog="python -m training.make_weights", description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"any of {', '.join(RECIPES)}; all by default")
    parser.add_argument("-o", "--folder", type=Path, required=True, help="folder for the recipes' folders")
    parser.add_argument("--grid", type=Path, help="folder of the GRID clips")
    parser.add_argument("--kokoro", type=Path, help="folder with kokoro.onnx and voices")
    parser.add_argument("--start", type=Path, help="weights that lip reading starts from; random by default")
    parser.add_argument("--tiny", action="store_true", help="smoke test: every step on a few clips")
    args = parser.parse_args(arguments)
    unknown = set(args.recipes) - set(RECIPES)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: no such recipe; expected any of {', '.join(RECIPES)}")
    if args.start and not (args.grid or args.tiny):
        parser.error("--start needs --grid: lip reading continues with the clips of its people")
    for name in args.recipes or RECIPES:
        output = RECIPES[name](MakeOptions(args.folder / name, args.grid, args.tiny, args.kokoro, args.start))
        print(f"{name}: {output}", flush=True)


if __name__ == "__main__":
    main()
