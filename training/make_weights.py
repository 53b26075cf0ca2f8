"""Make the weights that are bundled with Viseme, or some of them, by their recipes.

    python -m training.make_weights [reading ...] -o build/weights [--grid GRID] [--kokoro KOKORO] [--tiny]

GRID: folder of the GRID clips. KOKORO: folder with kokoro.onnx and voices, as `training.common.kokoro` explains. A
recipe resumes where it stopped, and writes to a folder of its own. --tiny takes every step of each recipe on a few
clips, in a minute or two, as a smoke test: the weights are unusable. It needs no data but clips of the synthetic
speaker.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.avatar import assemble, train_audio_encoder, train_unet
from training.common import kokoro
from training.common.espeak import Espeak, has_library
from training.common.synthetic_clips import FIRST_SEED
from training.lip_reading import render_clips
from training.lip_reading import train as train_reading
from training.lip_sync import face_packs, join_halves, train_audio
from training.lip_sync import train as train_sync


@dataclass(frozen=True)
class MakeOptions:
    """Options of every recipe. folder: its own. grid, kokoro: folders of data; None if they are not available."""

    folder: Path
    grid: Path | None
    is_tiny: bool
    kokoro: Path | None = None


NEVER_TRAINED_ON = ("s33",)  # speakers of GRID that measure people never seen; so do those that have no clips there
N_KOKORO, SEED = 500, 5  # utterances of Kokoro; their seed


def make_reading(options: MakeOptions) -> Path:
    """Train LipCoordNet from random weights, on rendered sentences, two by each person, and on GRID mouths."""
    packs, run = options.folder / "rendered", options.folder / "run"
    render_clips.make_packs(packs, 4 if options.is_tiny else 1400, FIRST_SEED, of_each=2)
    mouths = [packs] if options.grid is None or options.is_tiny else [options.grid / "mouths", packs]
    recipe = train_reading.LipReadingRecipe(tuple(mouths), run, epochs=1 if options.is_tiny else 45)
    train_reading.train(replace(recipe, held_out=1) if options.is_tiny else recipe)
    return run / "model.safetensors"


def make_avatar(options: MakeOptions) -> Path:
    """Train the audio encoder and the U-Net of the rendered portrait, and assemble them.

    The voices are espeak-ng's and, if the clips are available, GRID's.
    """
    audio, unet, assembled = (options.folder / name for name in ("audio", "unet", "assembled"))
    audio_recipe, unet_recipe = train_audio_encoder.AudioEncoderRecipe(audio), train_unet.UNetRecipe(unet)
    if options.is_tiny:
        audio_recipe = replace(audio_recipe, n_utterances=2, n_held_out=1, steps=1, batch=1)
        unet_recipe = replace(unet_recipe, n_scored=1, steps=1, batch=1)
    elif options.grid is not None:
        audio_recipe = replace(audio_recipe, clips=options.grid / "talking", mouths=options.grid / "mouths")
    train_audio_encoder.train(audio_recipe)
    train_unet.train(unet_recipe)
    assemble.write_avatar(
        assemble.AssemblyOptions(audio / "audio_network.safetensors", unet / "unet.safetensors", assembled)
    )
    return assembled / "network.safetensors"


def make_sync(options: MakeOptions) -> Path:
    """Train the two halves of a narrow Wav2Lip, and join them.

    The audio half learns from GRID faces, rendered people, Kokoro's voices, and espeak-ng's if it is installed; the
    drawing half from rendered people and GRID faces.
    """
    folder, is_tiny = options.folder, options.is_tiny
    packs = [folder / "rendered"]
    face_packs.make_packs(packs[0], None, 2 if is_tiny else 250)
    if options.grid is not None and not is_tiny:
        for name in ("talking", "people"):
            packs.append(folder / name)
            face_packs.make_packs(packs[-1], options.grid / name, 0, leave_out=NEVER_TRAINED_ON)
    speech = None if is_tiny else make_speech(options)
    audio = train_audio.AudioHalfRecipe(tuple(packs), folder / "audio", speech)
    if not has_library():
        audio = replace(audio, n_utterances=0)
    if is_tiny:
        audio = replace(audio, steps=1, batch=2, n_utterances=0)
    train_audio.train(audio)
    encoder, output = audio.run / "encoder.safetensors", folder / "model.safetensors"
    drawing = train_sync.LipSyncRecipe(tuple(packs), folder / "run", encoder)
    if is_tiny:
        drawing = replace(drawing, steps=1, batch=2)
    train_sync.train(drawing)
    join_halves.join(drawing.run / "model.safetensors", encoder, drawing, output)
    return output


def make_speech(options: MakeOptions) -> Path | None:
    """Synthesise Kokoro's speech; return its folder, or None if the model is not available."""
    if options.kokoro is None:
        return None
    model, voices = options.kokoro / "kokoro.onnx", options.kokoro / "voices"
    kokoro.make_packs(options.folder / "kokoro", kokoro.Kokoro(model, voices, Espeak()), N_KOKORO, SEED)
    return options.folder / "kokoro"


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
    parser.add_argument("--tiny", action="store_true", help="smoke test: every step on a few clips")
    args = parser.parse_args(arguments)
    unknown = set(args.recipes) - set(RECIPES)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: no such recipe; expected any of {', '.join(RECIPES)}")
    for name in args.recipes or RECIPES:
        output = RECIPES[name](MakeOptions(args.folder / name, args.grid, args.tiny, args.kokoro))
        print(f"{name}: {output}", flush=True)


if __name__ == "__main__":
    main()
