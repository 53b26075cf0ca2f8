"""What `bench.cases` expects of an outcome: words, lengths, sizes, warnings, messages, and what the video shows."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from bench.case_media import (
    Patch,
    brightest_and_loudest,
    changed_centre,
    comb_strength,
    grey_frames,
    lag_of,
    loudness_db,
    patches_of,
)
from bench.case_runs import Outcome

MOVING_LEVELS, MOVING_SHARE = 16, 0.001  # a pixel moves by so much; of the frame's pixels, so many do if a mouth speaks
SAME_LEVELS = 6.0  # mean difference of the upper parts of two frames that show the same
UPPER = 0.4  # of the height: above the mouth


@dataclass(frozen=True)
class Check:
    """expected: in words. find_fault: returns what is wrong, "" if nothing; gets the outcome and the inputs' folder."""

    expected: str
    find_fault: Callable[[Outcome, Path], str]


def unless(is_met: bool, found: object) -> str:
    return "" if is_met else str(found)


def reads(text: str, n_wrong: int = 0) -> Check:
    """Expect this text, without an error. n_wrong: so many of its words may be others."""

    def find_fault(got: Outcome, _: Path) -> str:
        words, wanted = got.text.split(), text.split()
        n_others = sum(one != other for one, other in zip(words, wanted, strict=False))
        is_met = not got.error and len(words) == len(wanted) and n_others <= n_wrong
        return unless(is_met, got.error or repr(got.text))

    return Check(repr(text) + (f" but for {n_wrong} word" if n_wrong else ""), find_fault)


def reads_at_most(n_words: int) -> Check:
    """Expect so many words at most."""
    return Check(
        f"at most {n_words} words",
        lambda got, _: unless(not got.error and len(got.text.split()) <= n_words, got.error or repr(got.text)),
    )


def refused(*parts: str) -> Check:
    """Expect one of the product's own errors, whose message has these parts."""

    def find_fault(got: Outcome, _: Path) -> str:
        is_plain = got.error and "internal error" not in got.error and "did not end" not in got.error
        return unless(bool(is_plain) and all(part in got.error for part in parts), got.error or "not refused")

    return Check(f"refused: {' ... '.join(parts)}", find_fault)


def video(
    seconds: float | None = None,
    size: tuple[int, int] | None = None,
    fps: tuple[float, float] = (10, 120),
    faceless: tuple[int, int] = (0, 0),
    passed_on: tuple[int, int] = (0, 0),
) -> Check:
    """Expect a video. fps, faceless, passed_on: from, to (inclusive); the last two in frames."""

    def find_fault(got: Outcome, _: Path) -> str:
        if got.error:
            return got.error
        faults = [
            ("length", seconds is None or abs(got.duration_s - seconds) <= 0.1, f"{got.duration_s:g} s"),
            ("size", size is None or got.size == size, f"{got.size[0]}x{got.size[1]}"),
            ("rate", fps[0] <= got.fps <= fps[1], f"{got.fps:g} fps"),
            ("without face", faceless[0] <= got.n_without_face <= faceless[1], got.n_without_face),
            ("passed on", passed_on[0] <= got.n_passed_on <= passed_on[1], got.n_passed_on),
        ]
        return ", ".join(f"{name} {found}" for name, is_met, found in faults if not is_met)

    words = ["a video"]
    words += [f"of {seconds:g} s"] if seconds is not None else []
    words += [f"{size[0]}x{size[1]}"] if size else []
    words += [f"at {fps[0]:g} to {fps[1]:g} fps"] if fps != (10, 120) else []
    words += ["a face in each frame"] if faceless == (0, 0) else [f"{faceless[0]} to {faceless[1]} frames without face"]
    return Check(" ".join(words), find_fault)


def frames(n_min: int, n_max: int) -> Check:
    """Expect so many frames."""
    return Check(
        f"{n_min} to {n_max} frames",
        lambda got, _: unless(not got.error and n_min <= got.n_frames <= n_max, got.error or f"{got.n_frames} frames"),
    )


def warns(part: str) -> Check:
    """Expect a warning that has this part."""
    return Check(
        f"warns: {part}",
        lambda got, _: unless(any(part in one for one in got.warnings), got.error or f"warnings {got.warnings}"),
    )


def silent_about(part: str) -> Check:
    """Expect no warning that has this part."""
    return Check(
        f"no warning: {part}",
        lambda got, _: unless(not any(part in one for one in got.warnings), f"warnings {got.warnings}"),
    )


def moves(is_expected: bool = True) -> Check:
    """Expect that the mouth of a still face moves, or rests."""

    def find_fault(got: Outcome, _: Path) -> str:
        assert got.output is not None
        shown = np.stack(list(grey_frames(got.output)))
        span = shown.max(axis=0).astype(int) - shown.min(axis=0)
        share = float((span > MOVING_LEVELS).mean())
        return unless((share > MOVING_SHARE) == is_expected, f"{share:.2%} of the pixels move")

    return on_video("the mouth moves" if is_expected else "the mouth rests", find_fault)


def shows(reference: str, levels: float = SAME_LEVELS, gain: float = 1.0) -> Check:
    """Expect the upper part of an input's first frame: upright, not mirrored, as bright. gain: of its grey levels."""

    def find_fault(got: Outcome, inputs: Path) -> str:
        assert got.output is not None
        ours, theirs = (frame_at(path, 0) for path in (got.output, inputs / reference))
        height, width = min(ours.shape[0], theirs.shape[0]), min(ours.shape[1], theirs.shape[1])
        if abs(ours.shape[0] - theirs.shape[0]) > 1 or abs(ours.shape[1] - theirs.shape[1]) > 1:
            return f"{ours.shape[1]}x{ours.shape[0]}, not {theirs.shape[1]}x{theirs.shape[0]}"
        top = round(height * UPPER)
        difference = float(np.abs(ours[:top, :width] - gain * theirs[:top, :width]).mean())
        return unless(difference <= levels, f"differs by {difference:.1f} levels")

    return on_video(f"shows {reference}", find_fault)


def in_sync(limit_s: float = 0.04) -> Check:
    """Expect that a flash and a click stay together."""

    def find_fault(got: Outcome, _: Path) -> str:
        assert got.output is not None
        flash, click = brightest_and_loudest(got.output)
        return unless(abs(flash - click) <= limit_s, f"flash at {flash:.3f} s, click at {click:.3f} s")

    return on_video(f"flash and click within {limit_s * 1000:g} ms", find_fault)


def audio_in_place(reference: str, start_s: float, end_s: float, limit_s: float = 0.04) -> Check:
    """Expect a span of the reference's audio at the same time in the output."""

    def find_fault(got: Outcome, inputs: Path) -> str:
        assert got.output is not None
        lag_s, similarity = lag_of(got.output, inputs / reference, start_s, end_s)
        return unless(
            abs(lag_s) <= limit_s and similarity > 0.5, f"audio is {lag_s:+.3f} s off, similarity {similarity:.2f}"
        )

    return on_video(f"audio of {start_s:g} to {end_s:g} s in its place", find_fault)


def as_loud_as(reference: str, gain_db: float = 0.0, limit_db: float = 1.0) -> Check:
    """Expect the loudest channel to be as loud as the reference's."""

    def find_fault(got: Outcome, inputs: Path) -> str:
        assert got.output is not None
        change = loudness_db(got.output) - loudness_db(inputs / reference)
        return unless(abs(change - gain_db) <= limit_db, f"audio is {change:+.1f} dB")

    return on_video(f"audio at {gain_db:+g} dB", find_fault)


def coloured(wanted: Sequence[Patch], levels: float = 4.0, grey_levels: float = 1.5) -> Check:
    """Expect the six patches in their colours as players show them: tagged BT.709, greys neutral."""

    def find_fault(got: Outcome, _: Path) -> str:
        assert got.output is not None
        found, tag = patches_of(got.output)
        worst = max(
            abs(a - b) for one, other in zip(found, wanted, strict=True) for a, b in zip(one, other, strict=True)
        )
        tint = max(max(one) - min(one) for one in found[4:])
        is_met = worst <= levels and tint <= grey_levels and tag == "bt709"
        return unless(is_met, f"worst patch off by {worst:.1f}, greys tinted by {tint:.1f}, tagged {tag}")

    return on_video(f"colours within {levels:g} levels, tagged BT.709", find_fault)


def mouth_at(source: str, places: dict[int, tuple[float, float]], radius: float) -> Check:
    """Expect frames to differ from the source's around these places, in parts of its width and height."""

    def find_fault(got: Outcome, inputs: Path) -> str:
        assert got.output is not None
        faults = []
        for number, (x, y) in places.items():
            centre = changed_centre(frame_at(got.output, number), frame_at(inputs / source, number))
            if centre is None or abs(centre[0] - x) > radius or abs(centre[1] - y) > radius:
                where = "nothing" if centre is None else f"({centre[0]:.2f}, {centre[1]:.2f})"
                faults.append(f"frame {number} changed at {where}, not ({x:.2f}, {y:.2f})")
        return "; ".join(faults)

    return on_video(f"the mouth is changed in its place in frames {', '.join(map(str, places))}", find_fault)


def region(where: tuple[slice, slice], low: float, high: float, words: str, at: int = 0) -> Check:
    """Expect the mean grey level of a part of a frame between two values."""

    def find_fault(got: Outcome, _: Path) -> str:
        assert got.output is not None
        level = float(frame_at(got.output, at)[where].mean())
        return unless(low <= level <= high, f"grey level {level:.0f} in frame {at}")

    return on_video(words, find_fault)


def not_combed(limit: float = 1.0) -> Check:
    """Expect that lines of the two fields do not alternate."""

    def find_fault(got: Outcome, _: Path) -> str:
        assert got.output is not None
        strength = comb_strength(frame_at(got.output, 20))
        return unless(strength < limit, f"comb strength {strength:.2f}")

    return on_video("no combs", find_fault)


def exits(code: int, *patterns: str) -> Check:
    """Expect a command to end with this code, and to print what each pattern matches."""

    def find_fault(got: Outcome, _: Path) -> str:
        missing = [one for one in patterns if not re.search(one, got.printed, re.DOTALL)]
        is_met = not got.error and got.exit_code == code and not missing and "Traceback" not in got.printed
        return unless(is_met, got.error or f"exit code {got.exit_code}: {got.printed[-300:]}")

    return Check(f"exit code {code}" + "".join(f", {one}" for one in patterns), find_fault)


def prints(pattern: str) -> Check:
    """Expect that what a client prints about one request matches."""
    return Check(
        pattern, lambda got, _: unless(re.search(pattern, got.printed, re.DOTALL) is not None, got.error or got.printed)
    )


def on_video(expected: str, find_fault: Callable[[Outcome, Path], str]) -> Check:
    """Return a check of a written video; without one, the error is the fault."""
    return Check(
        expected, lambda got, inputs: find_fault(got, inputs) if got.output is not None else got.error or "no video"
    )


def frame_at(path: Path, number: int) -> np.ndarray:
    """Return the frame with this number, the last one if there are fewer: (H, W) uint8."""
    return deque(islice(grey_frames(path), number + 1), maxlen=1)[0]
