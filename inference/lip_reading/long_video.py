"""Long videos, segmented into sentences, each decoded as a clip of its own.

The networks were trained on clips of one sentence, with the mouth at rest before and after it. They decode a window
badly if it cuts a sentence in two, or shows parts of two. Without their neighbours, and with the first and the last
frame repeated, the same frames decode as well as a clip. So the video is segmented from left to right: among all
frames that may end the next sentence, the one is chosen up to which the frames most probably contain exactly one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
import numpy.typing as npt

from inference.lip_reading.calibration import Calibration
from inference.lip_reading.grammar_decoder import (
    GRID,
    DecodedSpan,
    count_out_of_grammar_words,
    decode_span,
)
from inference.lip_reading.greedy_decoder import Logits, decode_greedy, log_softmax
from inference.lip_reading.lattice import sum_sentence_weights
from inference.lip_reading.options import FPS
from inference.lip_reading.preprocess import MIN_SHOT_FRAMES, WINDOW_FRAMES, MouthCrop, merge_short_shots
from inference.lip_reading.staged_network import Array, StagedNetwork
from inference.lip_reading.window_features import PaddedSpan, WindowFeatures
from inference.lip_reading.windows import SILENT_GAP

MIN_FRAMES = MIN_SHOT_FRAMES  # shorter runs are not decoded
# Candidate ends of the next sentence, in frames: a coarse grid first, from its middle outwards, then the neighbours of
# its best, and a finer grid if no candidate is clearly one sentence. Ends beyond a window use its last 75 frames: they
# begin with a pause.
COARSE_ENDS = tuple(range(31, WINDOW_FRAMES + 1, 6))
STEP = 3
NEIGHBOURS = (-STEP, STEP)
# A call of the recurrent layers costs as much as five more windows in it, so all ends that most sentences need are
# estimated in the first one: up to a bit beyond the longest of the last sentences.
FIRST_ENDS = range(43, 68, STEP)
MAX_FIRST_END = WINDOW_FRAMES + 4  # one step behind the last neighbour: it shows whether the pause goes on
N_LAST_ENDS = 3  # sentences whose lengths are remembered
FINE_ENDS = tuple(range(28, WINDOW_FRAMES + 1, 3))
LATE_ENDS = tuple(range(WINDOW_FRAMES + 6, WINDOW_FRAMES + 40, 6))
MAX_BUFFERED_FRAMES = LATE_ENDS[-1] + max(NEIGHBOURS)
ACCEPT_ABOVE = -2.5  # nats: exactly one sentence has a twelfth of the probability of all that could be decoded there
REJECT_BELOW = -15.0  # nats: below this, no nearby end turns the frames into a sentence
STRIDE = 24  # frames skipped if there is no sentence: what is left of a window still holds a whole one
# Ends are decoded if their estimated score is this close to the best. Estimates are off by 0.001 nats in the median, by
# up to 0.15 if the frames clearly contain one sentence.
MARGIN = 0.02  # nats, up to a score of -1; times the fourth power of a lower one: 0.1 at -1.5
CLEAR_ABOVE = -1.5  # nats
# Estimates of speech that no end makes clear say less: ends are decoded if they are this close to the best, and if
# the best is doubtful, as close as estimates may be wrong where speech follows at once.
UNCLEAR_MARGIN = 2.0  # nats
DOUBTFUL_BELOW = -3.0  # nats
DOUBTFUL_MARGIN = 12.0  # nats
# A part of the grid is enough if one of its ends is acceptable: up to the end of a sentence scores rise, and after
# the pause behind it they fall. If the first or last end tried is that close to the best, they may still rise past it.
RISING_WITHIN = 1.0  # nats, if the best is clear
UNCLEAR_RISING = 2.0  # nats
MIN_WEIGHT = 1e-300


@dataclass(frozen=True)
class Hypothesis:
    """Buffered frames [start, end), decoded as a clip.

    rows: (75, 28) logits; the first `n_padded_before` repeat the first frame. score: log probability that the frames
    contain exactly one sentence.
    """

    start: int
    end: int
    n_padded_before: int
    rows: Logits
    score: float


@dataclass
class PendingWindow:
    """A window whose end was chosen by estimates alone: it is decoded in the next batch.

    features: (1, 75, P). lips: (1, 75, 20, 2). rows: (75, 28) logits, None until then.
    """

    span: PaddedSpan
    features: Array
    lips: npt.NDArray[np.float32]
    rows: Logits | None = None


def decode_by_sentence(
    mouths: Iterable[MouthCrop], network: StagedNetwork, n_best: int, calibration: Calibration
) -> Iterator[DecodedSpan]:
    """Yield the decoded sentences of a video, with their times in it.

    Long gaps without a face, and held frames, are not decoded, and no sentence runs across a cut. At most 139 frames
    are buffered.
    """
    first = 0
    shots = merge_short_shots(mouths)
    for (is_gap, _), run in groupby(shots, key=lambda mouth: (mouth.silent_length >= SILENT_GAP, mouth.shot)):
        if is_gap:
            first += sum(1 for _ in run)
            continue
        segmenter = SentenceSegmenter(run, network, first)
        yield from segmenter.spans(n_best, calibration)
        first = segmenter.first


class SentenceSegmenter:
    """Segments a run of frames without a long gap or a cut into sentences.

    first: the frame of the video that is first in the buffer.
    """

    def __init__(self, mouths: Iterable[MouthCrop], network: StagedNetwork, first: int) -> None:
        self._mouths = iter(mouths)
        self._network = network
        self._buffer: list[MouthCrop] = []
        self._features = WindowFeatures(network, first)
        self._decoded: dict[int, Hypothesis] = {}  # of the buffered frames, by their end
        self._estimated: dict[int, Hypothesis] = {}  # likewise, but only close to what the frames give
        self._pending: PendingWindow | None = None
        self._is_speech = False  # the last span has a sentence
        self._last_ends: deque[int] = deque([0], N_LAST_ENDS)  # of the last sentences
        self.first = first

    def spans(self, n_best: int, calibration: Calibration) -> Iterator[DecodedSpan]:
        """Yield a span for each sentence, and for each second in which none begins."""
        while self._fill_buffer(MAX_BUFFERED_FRAMES) >= MIN_FRAMES:
            best = self._silent_window() or self._find_end()
            yield from self._pending_spans(n_best, calibration)
            if best.end not in self._decoded:
                self._pending = self._prepare(best.end)
                self._is_speech = True
                self._last_ends.append(best.end)
                self._advance(best.end)
                continue
            span = decode_span(best.rows, FPS, n_best, calibration)
            self._is_speech = bool(span.sentences)
            if self._is_speech:
                self._last_ends.append(best.end)
                start, end = (self.first + at for at in (best.start, best.end))
                yield span.shifted(start - best.n_padded_before, start, end, FPS)
                self._advance(best.end)
            else:
                skipped = best.rows[best.n_padded_before : best.n_padded_before + STRIDE]
                yield DecodedSpan((), count_out_of_grammar_words(log_softmax(skipped.astype(np.float64)), ()))
                self._advance(STRIDE)
        yield from self._pending_spans(n_best, calibration)
        self._advance(len(self._buffer))

    def _pending_spans(self, n_best: int, calibration: Calibration) -> Iterator[DecodedSpan]:
        """Yield the span whose window is pending, if any."""
        if (window := self._pending) is None:
            return
        self._pending = None
        rows = self._network.recur(window.features, window.lips)[0][0] if window.rows is None else window.rows
        at = window.span
        yield decode_span(rows, FPS, n_best, calibration).shifted(at.start - at.n_before, at.start, at.end, FPS)

    def _fill_buffer(self, n_frames: int) -> int:
        """Fill the buffer up to so many frames, or to the end of the run; return how many are buffered."""
        if new := list(islice(self._mouths, n_frames - len(self._buffer))):
            self._buffer += new
            self._features.append(new)
        return len(self._buffer)

    def _advance(self, n_frames: int) -> None:
        self._buffer = self._buffer[n_frames:]
        self.first += n_frames
        self._features.drop_before(self.first)
        self._decoded.clear()
        self._estimated.clear()

    def _silent_window(self) -> Hypothesis | None:
        """Return a window of the buffered frames if no character is decoded in it: the search can then be skipped."""
        end = min(len(self._buffer), WINDOW_FRAMES)
        # Speech mostly follows speech: an estimate is enough then, and the first step of the search joins its batch.
        if self._is_speech:
            self._estimate(self._first_ends())
            likely = max(self._estimated, key=self._score)
            if self._score(likely) < ACCEPT_ABOVE:  # the search will need all of these
                self._estimate([*self._coarse_ends(), *LATE_ENDS])
                likely = self._coarse_ends()[-1]
            if decode_greedy(self._estimated[likely].rows.argmax(axis=1)):
                return None
        self._decode([end])
        whole = self._decoded[end]
        return None if decode_greedy(whole.rows.argmax(axis=1)) else whole

    def _coarse_ends(self) -> Sequence[int]:
        last = len(self._buffer)
        return [*(end for end in COARSE_ENDS if end < last), last] if last <= WINDOW_FRAMES else COARSE_ENDS

    def _first_ends(self) -> Iterable[int]:
        """Return the ends that are estimated first."""
        if len(self._buffer) <= WINDOW_FRAMES:
            return self._coarse_ends()
        last = min(max(*self._last_ends, FIRST_ENDS[-1] - 2 * STEP) + 2 * STEP, MAX_FIRST_END)
        return range(FIRST_ENDS[0], last + 1, STEP)

    def _close_coarse_ends(self) -> list[int]:
        """Return the coarse ends close to the best of them, as estimated."""
        self._estimate(self._first_ends())
        tried = [end for end in self._coarse_ends() if end in self._estimated]
        while beside := self._rising_ends(tried):
            new = [end for end in beside if end not in self._estimated]
            self._estimate([*new, *(self._around(*new) if self._is_clear(tried) else ())])
            tried = sorted([*tried, *beside])
        return self._close_ends(tried)

    def _rising_ends(self, tried: Sequence[int]) -> list[int]:
        """Return the coarse ends next to those tried whose score may be the best, as scores rise towards them.

        All if none is acceptable.
        """
        coarse = self._coarse_ends()
        best = max(self._score(end) for end in tried)
        if best < ACCEPT_ABOVE:
            return [end for end in coarse if end not in tried]
        least = best - (RISING_WITHIN if best >= CLEAR_ABOVE else UNCLEAR_RISING)
        first, last = (coarse.index(end) for end in (tried[0], tried[-1]))
        before = coarse[max(first - 1, 0) : first] if self._score(tried[0]) >= least else ()
        return [*before, *(coarse[last + 1 : last + 2] if self._score(tried[-1]) >= least else ())]

    def _find_end(self) -> Hypothesis:
        """Return the best hypothesis for the next sentence."""
        last = len(self._buffer)
        best = self._best_of_coarse()
        if best.score < ACCEPT_ABOVE:
            best = self._improve(best, [*LATE_ENDS, *[last] * (last < MAX_BUFFERED_FRAMES)])
        if REJECT_BELOW < best.score < ACCEPT_ABOVE:
            best = self._improve(best, [*FINE_ENDS, *self._around(best.end)])
        return best

    def _best_of_coarse(self) -> Hypothesis:
        """Return the best hypothesis among the coarse ends and the neighbours of their best.

        It is an estimate if it is clear, no other one is close to it, and the pause goes on behind it.
        """
        coarse = self._close_coarse_ends()
        if len(coarse) > 1:  # the best of them has to be known; what may win in the end joins its batch
            beside = coarse if self._is_clear(coarse) else [max(coarse, key=self._score)]
            self._decode([*coarse, *self._close_ends([*coarse, *self._around(*beside)])])
            coarse = [max(coarse, key=lambda end: self._decoded[end].score)]
        ends = self._close_ends([*coarse, *self._around(coarse[0])])
        if len(ends) == 1 and coarse[0] not in self._decoded and self._is_in_pause(ends[0]):
            return self._estimated[ends[0]]
        self._decode(ends)
        # A neighbour's estimate that is too high can have left out the best coarse end, which is decoded.
        decoded = (self._decoded[end] for end in (*coarse, *ends) if end in self._decoded)
        return max(decoded, key=lambda one: one.score)

    def _improve(self, best: Hypothesis, ends: Iterable[int]) -> Hypothesis:
        """Decode up to those of these ends that may be better than the best so far; return the best of all."""
        close = self._close_ends([best.end, *ends])
        self._decode(close)
        return max([best, *(self._decoded[end] for end in close)], key=lambda one: one.score)

    def _close_ends(self, ends: Iterable[int]) -> list[int]:
        """Return those of these ends whose score is close to the best, which means less if it is doubtful.

        The scores of those that were not decoded are estimated.
        """
        ends = [end for end in dict.fromkeys(ends) if MIN_FRAMES <= end <= len(self._buffer)]
        self._estimate(end for end in ends if end not in self._decoded)
        best = max(self._score(end) for end in ends)
        if best < DOUBTFUL_BELOW:
            return [end for end in ends if self._score(end) >= best - DOUBTFUL_MARGIN]
        is_clear = best >= CLEAR_ABOVE
        lowest = best - (MARGIN * max(1.0, best**4) if is_clear else UNCLEAR_MARGIN)
        return [end for end in ends if self._score(end) >= lowest]

    def _is_in_pause(self, end: int) -> bool:
        """Return whether an end is clear, and one behind it hardly less: estimates fail where speech follows."""
        after = end + max(NEIGHBOURS)
        is_estimated = end in self._estimated and after in self._estimated
        return is_estimated and self._is_clear([end]) and self._score(after) >= self._score(end) - RISING_WITHIN

    def _is_clear(self, ends: Iterable[int]) -> bool:
        return max(self._score(end) for end in ends) >= CLEAR_ABOVE

    def _score(self, end: int) -> float:
        return (self._decoded.get(end) or self._estimated[end]).score

    def _around(self, *ends: int) -> list[int]:
        """Return the neighbours of these ends."""
        around = [end + step for end in ends for step in NEIGHBOURS]
        return [end for end in around if MIN_FRAMES <= end <= len(self._buffer)]

    def _decode(self, ends: Iterable[int]) -> None:
        """Decode the buffered frames up to each of these ends, in the middle of a window of its own, as one batch."""
        self._run(ends, self._decoded, self._features.compute)

    def _estimate(self, ends: Iterable[int]) -> None:
        """Estimate what `_decode` finds, at a small part of its cost."""
        self._run(ends, self._estimated, self._features.estimate)

    def _run(
        self, ends: Iterable[int], found: dict[int, Hypothesis], features: Callable[[Sequence[PaddedSpan]], Array]
    ) -> None:
        new = [end for end in dict.fromkeys(ends) if end not in found and end <= len(self._buffer)]
        if not new:
            return
        spans = [self._span(end) for end in new]
        rows = self._recur(features(spans), np.stack([self._pad_lips(span) for span in spans]))
        for end, span, one, score in zip(new, spans, rows, score_one_sentence(rows), strict=True):
            found[end] = Hypothesis(span.start - self.first, end, span.n_before, one, float(score))

    def _span(self, end: int) -> PaddedSpan:
        return PaddedSpan(self.first + max(end - WINDOW_FRAMES, 0), self.first + end)

    def _prepare(self, end: int) -> PendingWindow:
        """Return the window of the buffered frames up to an end, to be decoded later."""
        span = self._span(end)
        return PendingWindow(span, self._features.compute([span]), self._pad_lips(span)[None])

    def _recur(self, features: Array, lips: npt.NDArray[np.float32]) -> Logits:
        """Run the recurrent layers on windows, (B, 75, P) and (B, 75, 20, 2), and on the one that is pending."""
        window = self._pending
        if window is None or window.rows is not None:
            return np.asarray(self._network.recur(features, lips)[0])
        (rows,) = self._network.recur(np.concatenate([features, window.features]), np.concatenate([lips, window.lips]))
        window.rows = rows[-1]
        return np.asarray(rows[:-1])

    def _pad_lips(self, span: PaddedSpan) -> npt.NDArray[np.float32]:
        own = np.stack([mouth.lips for mouth in self._buffer[span.start - self.first : span.end - self.first]])
        return np.pad(own, ((span.n_before, span.n_after), (0, 0), (0, 0)), "edge")


def score_one_sentence(rows: Logits) -> npt.NDArray[np.float64]:
    """Return the log probability that logits contain exactly one sentence of the grammar, whichever.

    rows: (B, T, 28). Returns: (B,)
    """
    log_p = log_softmax(rows.astype(np.float64))
    highest = log_p.max(axis=2, keepdims=True)
    scores = sum_sentence_weights(GRID, np.exp(log_p - highest))
    return np.asarray(np.maximum(scores, math.log(MIN_WEIGHT)) + highest.sum(axis=(1, 2)))
