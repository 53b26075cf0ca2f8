"""The weights that ship with Viseme, on faces and voices outside their training data."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.sync_quality import FIRST_PERSON, Quality, SyncEvaluator, mean_quality
from inference.dimensions.wav2lip import Wav2LipWidths
from inference.faces import Landmarker
from inference.lip_sync import LipSyncer
from inference.models import Wav2Lip
from inference.speaker import SyntheticClip
from inference.weights.cache import locate
from inference.weights.checkpoint import load_into, read_tensors
from inference.weights.registry import STARTER_SYNC
from training.common.synthetic_clips import FIRST_SEED, draw_sentence

MOST_BYTES = 7_000_000


@pytest.fixture(scope="module")
def evaluator(weights_cache: Path, landmarker: Landmarker) -> SyncEvaluator:
    return SyncEvaluator(LipSyncer(device="cpu"), landmarker)


@pytest.fixture(scope="module")
def found(evaluator: SyncEvaluator, tmp_path_factory: pytest.TempPathFactory) -> Quality:
    """Quality with one person's voice on another person's face."""
    folder = tmp_path_factory.mktemp("people")
    audio, face = (folder / f"{seed}.mp4" for seed in (21, 22))
    for path in (audio, face):
        SyntheticClip(draw_sentence(int(path.stem)), int(path.stem)).write(path)
    return evaluator.evaluate(audio, face)


def test_it_is_the_default(evaluator: SyncEvaluator):
    (generator,) = evaluator.syncer.generators
    assert generator.name == "starter"
    assert generator.sha256 == STARTER_SYNC.files[0].sha256
    assert evaluator.syncer.warnings == ()


def test_it_is_complete_and_small(tmp_path: Path):
    path = locate(STARTER_SYNC, STARTER_SYNC.files[0], tmp_path)
    assert path.stat().st_size == STARTER_SYNC.files[0].n_bytes < MOST_BYTES
    load_into(Wav2Lip(Wav2LipWidths.of(read_tensors(path))), path)


def test_its_mouth_follows_the_audio(found: Quality):
    assert found.ours > found.shuffled + 0.2
    assert found.ours > 0.5 * found.original  # for one voice; the card has means


def test_it_generates_the_mouth_better_than_a_copy(found: Quality):
    assert found.ssim > found.copying


def test_its_mouth_rests_in_silence(found: Quality):
    assert found.rest < 0.4


def test_the_card_describes_these_bytes_and_meets_its_bounds():
    card = STARTER_SYNC.read_card()
    assert card["sha256"] == STARTER_SYNC.files[0].sha256
    assert {"s1, held out", "trained speakers", "strangers", "rendered people"} <= set(card["results"])
    for name, figures in card["results"].items():
        quality = Quality(**{key: figures[key] for key in Quality.__annotations__ if key in figures})
        assert quality.faults == [], name


def test_the_test_people_are_not_in_the_training_data():
    assert FIRST_PERSON + 100 < FIRST_SEED


def test_held_out_real_clips(evaluator: SyncEvaluator, shared: Path):
    clips = sorted((shared / "grid" / "eval").glob("*.mpg"))[:2]
    quality = mean_quality(evaluator.evaluate_all(clips))
    assert quality.ours > quality.shuffled + 0.1
    assert quality.ssim > quality.copying
