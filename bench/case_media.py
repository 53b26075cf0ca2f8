"""What the videos of `bench.cases` show and when: frames, patches, flashes, clicks, combs, the place of changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Patch = tuple[float, float, float]

RATE = 16_000
CHANGED_LEVELS = 24  # beyond what encoding changes
KR, KB = 0.2126, 0.0722  # ITU-R BT.709
MATRICES = {1: "bt709", 2: "untagged", 5: "bt470bg", 6: "smpte170m", 9: "bt2020nc"}  # ITU-T H.273


def grey_frames(path: Path) -> Iterator[Grey]:
    """Yield the frames as they are stored, (H, W) uint8 of full range."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.reformat(format="gray").to_ndarray(), np.uint8)


def timed_audio(path: Path) -> Iterator[tuple[float, npt.NDArray[np.float32], int]]:
    """Yield blocks of audio: start in seconds, (channels, N) float32, rate."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        resampler = None
        for frame in container.decode(stream):
            resampler = resampler or av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
            for block in resampler.resample(frame):
                # Packed: PyAV reads beyond the planes of a frame of eight channels.
                samples = np.frombuffer(memoryview(block.planes[0]), np.float32)
                samples = samples[: block.samples * block.layout.nb_channels].reshape(block.samples, -1).T
                yield float(block.time or 0), samples, block.sample_rate


def brightest_and_loudest(path: Path) -> tuple[float, float]:
    """Return the times of the brightest frame and of the loudest sample, in seconds."""
    with av.open(str(path)) as container:
        flash = max(
            (float(f.reformat(format="gray").to_ndarray().mean()), float(f.time)) for f in container.decode(video=0)
        )
    loudest, click = 0.0, -1.0
    for start_s, block, rate in timed_audio(path):
        levels = np.abs(block).max(axis=0)
        if levels.max() > loudest:
            loudest, click = float(levels.max()), start_s + int(levels.argmax()) / rate
    return flash[1], click


def mono_track(path: Path) -> npt.NDArray[np.float32]:
    """Return the loudest channel at 16 kHz, each sample at its own time from 0 s."""
    blocks = list(timed_audio(path))
    loudest = int(sum(np.square(block).sum(axis=1) for _, block, _ in blocks).argmax())
    parts: list[tuple[int, npt.NDArray[np.float32]]] = []
    for start_s, block, rate in blocks:
        n_samples = max(1, round(block.shape[1] * RATE / rate))
        places = np.linspace(0, block.shape[1] - 1, n_samples)
        samples = np.interp(places, np.arange(block.shape[1]), block[loudest]).astype(np.float32)
        parts.append((max(0, round(start_s * RATE)), samples))
    track = np.zeros(max(start + len(samples) for start, samples in parts), np.float32)
    for start, samples in parts:
        track[start : start + len(samples)] = samples
    return track


def lag_of(path: Path, reference: Path, start_s: float, end_s: float, search_s: float = 1.5) -> tuple[float, float]:
    """Return by how many seconds a span of the reference's audio comes late in the other file, and the similarity."""
    ours, theirs = mono_track(path), mono_track(reference)
    span = theirs[round(start_s * RATE) : round(end_s * RATE)]
    margin = round(search_s * RATE)
    padded = np.pad(ours, (margin, margin + len(span)))
    first = round(start_s * RATE)
    window = padded[first : first + 2 * margin + len(span)]
    scores = cv2.matchTemplate(window[None], span[None], cv2.TM_CCORR_NORMED)[0]
    best = int(scores.argmax())
    return (best - margin) / RATE, float(scores[best])


def loudness_db(path: Path) -> float:
    """Return the RMS of the loudest channel in dB of full scale."""
    blocks = [block for _, block, _ in timed_audio(path)]
    samples = np.concatenate(blocks, axis=1).astype(np.float64)
    return float(10 * np.log10(np.square(samples).mean(axis=1).max() + 1e-12))


def patches_of(path: Path) -> tuple[list[Patch], str]:
    """Return the red, green and blue of the chart's six patches by BT.709 of limited range, and the tagged matrix."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        height, width = frame.height, frame.width
        planes = frame.reformat(format="yuv420p").to_ndarray()
        tag = MATRICES.get(int(frame.colorspace), str(frame.colorspace))
    luma = planes[:height].astype(float)
    chroma = planes[height:].reshape(2, height // 2, width // 2).astype(float)
    found = []
    for i in range(6):
        top, left = i * 120 + 40, 960
        y = (luma[top : top + 40, left : left + 60].mean() - 16) * 255 / 219
        part = chroma[:, top // 2 : top // 2 + 20, left // 2 : left // 2 + 30].mean(axis=(1, 2))
        u, v = (part - 128) * 255 / 224
        red, blue = y + 2 * (1 - KR) * v, y + 2 * (1 - KB) * u
        found.append((red, (y - KR * red - KB * blue) / (1 - KR - KB), blue))
    return found, tag


def changed_centre(ours: Grey, theirs: Grey) -> tuple[float, float] | None:
    """Return the centre of what differs, in parts of the width and height; None if nothing does."""
    if ours.shape != theirs.shape:
        theirs = theirs[: ours.shape[0], : ours.shape[1]]
    difference = cv2.blur(np.abs(ours.astype(np.int16) - theirs).astype(np.float32), (5, 5))
    rows, columns = np.nonzero(difference > CHANGED_LEVELS)
    if len(rows) < 20:
        return None
    return float(np.median(columns)) / ours.shape[1], float(np.median(rows)) / ours.shape[0]


def comb_strength(frame: Grey) -> float:
    """Return the difference of neighbouring lines over that of next but one: above 1 if two fields alternate."""
    lines = frame.astype(np.int16)
    near = np.abs(lines[1:-1] - lines[:-2]).mean()
    return float(near / max(np.abs(lines[2:] - lines[:-2]).mean(), 0.1))
