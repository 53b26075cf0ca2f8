"""Detail for generated mouths from the video itself: `--enhance video`.

Networks generate 96 x 96 pixels, and softer than that. For each generated mouth, a mouth of the same video that is near
in shape, pose and look is warped onto it. What a softening as strong as the network's would take from that mouth is
added to the generated one: its own coarse structure, and so how far it is open, stays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from inference.faces import FaceBox, Landmarker
from inference.faces.paste import FADE_FROM, resize_patch
from inference.lip_sync.compose import FaceFrameBatch
from inference.lip_sync.mouth_bank import EXCLUDED, MouthBank
from inference.lip_sync.mouth_shape import MeasuredMouth, Vector, measure_mouth
from inference.lip_sync.mouth_warp import ThinPlate, refine, sample
from inference.lip_sync.preprocess import FACE_SIZE, FaceFrame
from inference.media import Frame

LOOKAHEAD = 5  # frames, before an example is chosen; 31 MB of 1920x1080
SWITCH_COST = 0.005  # distance that another example must save, summed over the frames for which it is used
# Distance from which detail is faded out, and from which the generated mouth stays as it is.
NEAR, FAR = 0.045, 0.08
CROSS_FADE = {-1: 0.25, 0: 0.5, 1: 0.25}  # weights of the examples chosen for the frames around
FIRST_ROW = 0.95 * FADE_FROM  # share of the box above which the blend shows nothing of a patch
# Softness: standard deviation, in pixels of 96, of the Gaussian that makes a mouth of the video as soft as a generated
# one; both are compared by their gradients in these rows and columns. Resampling alone counts as the last one.
SIGMAS = np.array([0, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.6, 1.9, 2.2, 2.6, 3, 3.5])
SHARPNESS_ROWS, SHARPNESS_COLUMNS = slice(48, 92), slice(20, 76)
RESAMPLING_SIGMA = 0.5
SOFTNESS_EVERY, SOFTNESS_RATE = 5, 0.2  # frames between estimates, and their share of the running mean
# Levels of 255 by which the softened example may differ from the generated mouth, locally: less and less detail is
# added from the first to the second.
GOOD_MATCH, BAD_MATCH = 10.0, 30.0
MATCH_SIGMA = 3.0  # pixels of 96

Levels = npt.NDArray[np.float32]


def add_detail(batches: Iterable[FaceFrameBatch], bank: MouthBank, landmarker: Landmarker) -> Iterator[FaceFrameBatch]:
    """Yield the frames one by one, a few later, with detail from the bank in the mouths of each network.

    A mouth that none in the bank is near to stays as it is.
    """
    waiting: deque[FaceFrame] = deque()
    streams: list[DetailStream] = []
    for batch in batches:
        streams = streams or [DetailStream(bank, landmarker) for _ in batch.patches]
        faces = iter(zip(*batch.patches, strict=True))
        for face_frame in batch.face_frames:
            if waiting and (face_frame.box is None or face_frame.shot != waiting[-1].shot):
                yield from take(waiting, [stream.finish() for stream in streams])
            if face_frame.box is None:
                yield FaceFrameBatch((face_frame,), (), tuple([] for _ in streams))
                continue
            waiting.append(face_frame)
            box, patches = face_frame.box, next(faces)
            done = [stream.add(face_frame, box, patch) for stream, patch in zip(streams, patches, strict=True)]
            yield from take(waiting, done)
    yield from take(waiting, [stream.finish() for stream in streams])


def take(waiting: deque[FaceFrame], done: Sequence[Sequence[Frame]]) -> Iterator[FaceFrameBatch]:
    """Yield the oldest frames with their patches, the same number of each network."""
    for patches in zip(*done, strict=True):
        yield FaceFrameBatch((waiting.popleft(),), (), tuple([patch] for patch in patches))


@dataclass(frozen=True)
class PendingMouth:
    """A generated mouth that waits for its example.

    distances: to each example. before: the best example for the frame before, for each example of this one.
    """

    box: FaceBox
    patch: Frame
    mouth: MeasuredMouth | None
    distances: Vector
    before: npt.NDArray[np.int64]


class DetailStream:
    """Adds detail to the mouths of one network, in order.

    Examples are chosen by the Viterbi algorithm with a fixed lag, so that they change seldom, and cross-faded.
    """

    def __init__(self, bank: MouthBank, landmarker: Landmarker) -> None:
        self._bank, self._landmarker = bank, landmarker
        self._pending: deque[PendingMouth] = deque()
        self._totals: Vector | None = None  # cost of the best path to each example
        self._last: int | None = None  # example of the frame before
        self._softness: float | None = None
        self._n_done = 0

    def add(self, face_frame: FaceFrame, box: FaceBox, patch: Frame) -> list[Frame]:
        """Take the next mouth. Returns: the patches that are finished, oldest first."""
        mouth = measure_mouth(face_frame.frame, box, face_frame.angle_rad, self._landmarker, patch)
        n = len(self._bank.examples)
        distances = (
            np.full(n, EXCLUDED, np.float32) if mouth is None or not n else self._bank.distances(mouth, face_frame.shot)
        )
        self._pending.append(PendingMouth(box, patch, mouth, distances, self._extend_paths(distances)))
        return [self._next()] if len(self._pending) > LOOKAHEAD else []

    def finish(self) -> list[Frame]:
        """End a run of frames. Returns: the patches that waited."""
        done = [self._next() for _ in range(len(self._pending))]
        self._totals = self._last = None
        return done

    def _extend_paths(self, distances: Vector) -> npt.NDArray[np.int64]:
        stay = np.arange(len(distances))
        if self._totals is None or not len(distances):
            self._totals = distances
            return stay
        best = int(self._totals.argmin())
        is_switch = self._totals > self._totals[best] + SWITCH_COST
        self._totals = np.where(is_switch, self._totals[best] + SWITCH_COST, self._totals) + distances
        self._totals -= self._totals.min()  # only differences matter, and they stay exact
        return np.where(is_switch, best, stay)

    def _best_path(self) -> list[int]:
        """Return the example of each pending mouth."""
        assert self._totals is not None
        path = [int(self._totals.argmin())]
        for one in list(self._pending)[:0:-1]:
            path.append(int(one.before[path[-1]]))
        return path[::-1]

    def _next(self) -> Frame:
        """Return the oldest patch, finished."""
        if not self._bank.examples:
            return self._pending.popleft().patch
        path = self._best_path()
        one = self._pending.popleft()
        around = {-1: path[0] if self._last is None else self._last, 0: path[0], 1: path[min(1, len(path) - 1)]}
        self._last = path[0]
        share = float(np.clip((FAR - one.distances[path[0]]) / (FAR - NEAR), 0, 1))
        if share == 0 or one.mouth is None:
            return one.patch
        weights: dict[int, float] = {}
        for offset, weight in CROSS_FADE.items():
            if one.distances[around[offset]] < FAR:
                weights[around[offset]] = weights.get(around[offset], 0.0) + weight
        return self._render(one, one.mouth, weights, share)

    def _render(self, one: PendingMouth, mouth: MeasuredMouth, weights: dict[int, float], share: float) -> Frame:
        """Return the patch at the size of its box, with detail. weights: of the examples. share: of the detail."""
        width, height = int(one.box.width), int(one.box.height)
        top = int(FIRST_ROW * height)
        small_size = (FACE_SIZE, max(round((height - top) * FACE_SIZE / height), 1))
        enhanced = resize_patch(one.patch, one.box).copy()
        generated = shrink(enhanced[top:], small_size)
        plate = ThinPlate(mouth, (width, height), top)
        warped = np.zeros((height - top, width, 3), np.float32)
        for number, weight in weights.items():
            example = self._bank.examples[number]
            at = plate.map_onto(example)
            first = shrink(sample(example, at), small_size)
            softened = soften(first, self._estimate_softness(first, generated))
            warped += sample(example, refine(at, softened, generated)) * np.float32(weight / sum(weights.values()))
        small = shrink(warped, small_size)
        softened = soften(small, self._estimate_softness(small, generated, is_new=True))
        detail = warped - cv2.resize(softened, (width, height - top))
        amount = cv2.resize(match_weight(softened, generated), (width, height - top))[..., None] * np.float32(share)
        enhanced[top:] = np.clip(np.rint(enhanced[top:] + detail * amount), 0, 255)
        return enhanced

    def _estimate_softness(self, example: Levels, generated: Levels, is_new: bool = False) -> float:
        """Return the running mean of the network's softness. is_new: whether a frame is added to it, if it is due."""
        if self._softness is None:
            self._softness = measure_softness(example, generated)
        elif is_new:
            self._n_done += 1
            if self._n_done % SOFTNESS_EVERY == 0:
                self._softness += SOFTNESS_RATE * (measure_softness(example, generated) - self._softness)
        return self._softness


def measure_softness(example: Levels, generated: Levels) -> float:
    """Return the standard deviation, px, of the Gaussian that leaves an example no sharper than what was generated.

    Both: (h, 96, 3), the lowest rows of a face of 96 x 96 pixels.
    """
    grey = to_grey(example)
    wanted = sharpness(to_grey(generated))
    sigma = next((one for one in SIGMAS if sharpness(soften(grey, float(one))) <= wanted), SIGMAS[-1])
    return float(np.sqrt(max(sigma**2 - RESAMPLING_SIGMA**2, 0.0)))


def sharpness(grey: Levels) -> float:
    """Return the mean square of the differences of neighbouring pixels around the mouth."""
    first = FACE_SIZE - grey.shape[0]
    around = grey[SHARPNESS_ROWS.start - first : SHARPNESS_ROWS.stop - first, SHARPNESS_COLUMNS]
    return float((np.diff(around, axis=0) ** 2).mean() + (np.diff(around, axis=1) ** 2).mean())


def shrink(image: Frame | Levels, size: tuple[int, int]) -> Levels:
    """Resize an image to width and height, by averaging."""
    return np.asarray(cv2.resize(image.astype(np.float32, copy=False), size, interpolation=cv2.INTER_AREA), np.float32)


def soften(image: Levels, sigma: float) -> Levels:
    """Return an image blurred by a Gaussian; sigma 0 leaves it as it is."""
    return image if sigma == 0 else np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)


def to_grey(image: Levels) -> Levels:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.float32)


def match_weight(softened: Levels, generated: Levels) -> Levels:
    """Return how well a softened example matches what was generated, (h, 96) float32: 1 where it does, 0 where not."""
    one, other = to_grey(softened), to_grey(generated)
    difference = np.abs((one - one.mean()) - (other - other.mean()))
    smooth = cv2.GaussianBlur(difference, (0, 0), MATCH_SIGMA)
    return np.asarray(np.clip((BAD_MATCH - smooth) / (BAD_MATCH - GOOD_MATCH), 0, 1), np.float32)
