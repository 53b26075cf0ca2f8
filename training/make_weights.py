"""Make the weights that Viseme ships, or some of them, by their recipes.

    python -m training.make_weights [reading ...] -o build/weights [--grid ../shared/grid] [--tiny]

A recipe goes on where it stopped, and leaves what it made in a folder of its own. --tiny goes through every step
of each on a handful of clips, in a minute or two and to no use but to show that it runs; it needs no data but what
the synthetic speaker says.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.avatar import assemble, train_audio_encoder, train_unet
from training.avatar.espeak import has_library
from training.lip_reading import render_clips
from training.lip_reading import train as train_reading
from training.lip_sync import face_packs, mouth_gain
from training.lip_sync import train as train_sync


@dataclass(frozen=True)
class Making:
    """What a recipe is told. folder: its own. grid: the GRID clips; None where they are not at hand."""

    folder: Path
    grid: Path | None
    is_tiny: bool


def make_reading(making: Making) -> Path:
    """LipCoordNet: rendered sentences, two by each person, beside the GRID mouths; from nothing."""
    packs, run = making.folder / "rendered", making.folder / "run"
    render_clips.make_packs(packs, 4 if making.is_tiny else 1400, render_clips.FIRST_SEED, of_each=2)
    mouths = [packs] if making.grid is None or making.is_tiny else [making.grid / "mouths", packs]
    recipe = train_reading.Recipe(tuple(mouths), start=None, run=run, epochs=1 if making.is_tiny else 45)
    train_reading.train(replace(recipe, held_out=1) if making.is_tiny else recipe)
    return run / "model.safetensors"


def make_avatar(making: Making) -> Path:
    """The painter of the rendered sitter, and the ear that tells it the mouth; two voices' kinds where GRID is."""
    heard, painted, made = (making.folder / name for name in ("ear", "painter", "made"))
    listening, painting = train_audio_encoder.Recipe(heard), train_unet.Recipe(painted)
    if making.is_tiny:
        listening = replace(listening, n_utterances=2, n_held_out=1, steps=1, batch=1)
        painting = replace(painting, n_scored=1, steps=1, batch=1)
    elif making.grid is not None:
        listening = replace(listening, clips=making.grid / "talking", mouths=making.grid / "mouths")
    train_audio_encoder.train(listening)
    train_unet.train(painting)
    assemble.write_avatar(assemble.Recipe(heard / "ear.safetensors", painted / "painter.safetensors", made))
    return made / "network.safetensors"


def make_sync(making: Making) -> Path:
    """Wav2Lip, narrow: rendered people beside the GRID talking faces, and espeak-ng's voices where it is installed."""
    filmed, drawn, run = (making.folder / name for name in ("filmed", "drawn", "run"))
    face_packs.make_packs(drawn, None, 2 if making.is_tiny else 250)
    packs = [drawn]
    if making.grid is not None and not making.is_tiny:
        face_packs.make_packs(filmed, making.grid / "talking", 0)
        packs = [filmed, drawn]
    recipe, made = train_sync.Recipe(tuple(packs), run), making.folder / "made.safetensors"
    recipe = replace(recipe, n_voices=train_sync.Recipe.n_voices if has_library() else 0)
    if making.is_tiny:
        recipe = replace(recipe, ear_steps=1, steps=1, batch=2, n_voices=0)
    train_sync.train(recipe)
    mouth_gain.set_gain(run / "model.safetensors", recipe, made)
    return made


# What each makes; returns the file to ship.
RECIPES: dict[str, Callable[[Making], Path]] = {"reading": make_reading, "sync": make_sync, "avatar": make_avatar}


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and make them one after another."""
    parser = argparse.ArgumentParser(prog="python -m training.make_weights", description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of {', '.join(RECIPES)}; all by default")
    parser.add_argument("-o", "--folder", type=Path, required=True, help="where each has a folder of its own")
    parser.add_argument("--grid", type=Path, help="folder of the GRID clips")
    parser.add_argument("--tiny", action="store_true", help="a handful of clips through every step")
    asked = parser.parse_args(words)
    unknown = set(asked.recipes) - set(RECIPES)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: no such recipe; there are {', '.join(RECIPES)}")
    for name in asked.recipes or RECIPES:
        made = RECIPES[name](Making(asked.folder / name, asked.grid, asked.tiny))
        print(f"{name}: {made}", flush=True)


if __name__ == "__main__":
    main()
