"""Make the weights that are bundled with Viseme, or some of them, by their recipes.

    python -m training.make_weights [reading ...] -o build/weights [--grid GRID] [--tiny]

GRID: folder of the GRID clips. A recipe resumes where it stopped, and writes to a folder of its own. --tiny takes every
step of each recipe on a few clips, in a minute or two, as a smoke test: the weights are unusable. It needs no data but
clips of the synthetic speaker.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.avatar import assemble, train_audio_encoder, train_unet
from training.common.espeak import has_library
from training.common.synthetic_clips import FIRST_SEED
from training.lip_reading import render_clips
from training.lip_reading import train as train_reading
from training.lip_sync import face_packs, mouth_gain
from training.lip_sync import train as train_sync


@dataclass(frozen=True)
class MakeOptions:
    """Options of every recipe. folder: its own. grid: folder of the GRID clips; None if they are not available."""

    folder: Path
    grid: Path | None
    is_tiny: bool


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
    """Train a narrow Wav2Lip on rendered people and GRID faces, and on espeak-ng's voices if it is installed."""
    real, rendered, run = (options.folder / name for name in ("real", "rendered", "run"))
    face_packs.make_packs(rendered, None, 2 if options.is_tiny else 250)
    packs = [rendered]
    if options.grid is not None and not options.is_tiny:
        face_packs.make_packs(real, options.grid / "talking", 0)
        packs = [real, rendered]
    recipe, output = train_sync.LipSyncRecipe(tuple(packs), run), options.folder / "model.safetensors"
    if not has_library():
        recipe = replace(recipe, n_utterances=0)
    if options.is_tiny:
        recipe = replace(recipe, audio_steps=1, steps=1, batch=2, n_utterances=0)
    train_sync.train(recipe)
    mouth_gain.write_amplified(run / "model.safetensors", recipe, output)
    return output


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
    parser.add_argument("--tiny", action="store_true", help="smoke test: every step on a few clips")
    args = parser.parse_args(arguments)
    unknown = set(args.recipes) - set(RECIPES)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: no such recipe; expected any of {', '.join(RECIPES)}")
    for name in args.recipes or RECIPES:
        output = RECIPES[name](MakeOptions(args.folder / name, args.grid, args.tiny))
        print(f"{name}: {output}", flush=True)


if __name__ == "__main__":
    main()
