"""Runs of held frames, in which no word is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from inference.lip_reading.preprocess import MouthCrop
from inference.lip_reading.windows import SILENT_GAP


def silence_held(mouths: Iterable[MouthCrop]) -> Iterator[MouthCrop]:
    """Yield the same mouths; in a run of SILENT_GAP held frames or more, none is decoded.

    Shorter runs stay: of 12 frames a second, each is held for two. At most SILENT_GAP mouths are buffered.
    """
    run: list[MouthCrop] = []
    for mouth in mouths:
        if not mouth.is_held:
            yield from run if len(run) < SILENT_GAP else ()
            run = []
            yield mouth
            continue
        run.append(mouth)
        if len(run) == SILENT_GAP:
            yield from (silenced(one) for one in run)
        elif len(run) > SILENT_GAP:
            run.pop()
            yield silenced(mouth)
    yield from run if len(run) < SILENT_GAP else ()


def silenced(mouth: MouthCrop) -> MouthCrop:
    return replace(mouth, held_length=SILENT_GAP)
