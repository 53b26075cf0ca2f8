from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference.models import Wav2Lip
from training.lip_sync import join_halves
from training.lip_sync.evaluate import MotionScore
from training.lip_sync.join_halves import SHUT, HalfJoiner, MapChoice, choose_offset, choose_widest
from training.lip_sync.samples import PreparedClip
from training.lip_sync.shape_encoding import TALL, OpeningMap, ShapeEncoding, layers_of, set_audio_half
from training.lip_sync.train_audio import read_encoder
from training.lip_sync.widths import WIDTHS


def choices(*scores: tuple[float, float, float]) -> list[MapChoice]:
    return [MapChoice(OpeningMap(SHUT, 2.0 + i), MotionScore(*score)) for i, score in enumerate(scores)]


def test_the_joined_encoder_encodes_the_mapped_shape(encoder: Path, prepared: PreparedClip):
    torch.manual_seed(2)
    network, encoding, half = Wav2Lip(WIDTHS).eval(), ShapeEncoding(5), read_encoder(encoder)
    mels = torch.from_numpy(prepared.audio.windows(75))
    with torch.no_grad():
        opening, height, width = half(mels).shapes.T
        assert opening.std() > 0.1
        set_audio_half(network, half, encoding, OpeningMap(shut=-1.0, widest=3.0, form=0.5, tall=0.25))
        gap = 4 * opening.clamp_min(0) - 1
        expected = torch.stack([gap, height / 2 + gap / 4, width / 2], dim=1)
        torch.testing.assert_close(network.audio_encoder(mels), encoding(expected), atol=1e-4, rtol=1e-4)


def test_an_offset_shuts_lips_that_are_nearly_shut(encoder: Path, prepared: PreparedClip):
    network, half = Wav2Lip(WIDTHS).eval(), read_encoder(encoder)
    mels = torch.from_numpy(prepared.audio.windows(75))
    with torch.no_grad():
        opening = half(mels).shapes[:, 0]
        offset = float(opening.quantile(0.7))
        set_audio_half(network, half, ShapeEncoding(5), OpeningMap(-1.0, 3.0, offset))
        outputs = network.audio_encoder[:-1](mels).flatten(1)[:, 0]
    torch.testing.assert_close(outputs, (opening - offset).clamp_min(0), atol=1e-5, rtol=1e-4)
    assert 0.5 < (outputs == 0).float().mean() < 0.9
    assert half.layers[-1].conv_block[1].bias[0] != layers_of(network.audio_encoder[-2])[1].bias[0]


def test_the_widest_map_that_costs_little_correlation_is_taken():
    tried = choices((0.71, 0.5, 0.2), (0.70, 0.8, 0.2), (0.60, 0.9, 0.1))
    assert choose_widest(tried) is tried[1]
    too_far = choices((0.6, 0.5, 0.2), (0.8, 1.3, 0.1))
    assert choose_widest(too_far) is too_far[0]
    unseen = MapChoice(OpeningMap(SHUT, 2.0), None)
    assert choose_widest([unseen]) is unseen


def test_the_least_offset_with_which_mouths_rest_is_taken():
    tried = choices((0.7, 0.5, 0.2), (0.7, 0.5, 0.09), (0.7, 0.5, 0.05))
    assert choose_offset(tried) is tried[1]
    assert choose_offset(tried[:1]) is tried[0]


def test_offsets_are_tried_until_mouths_rest(
    encoder: Path, prepared: PreparedClip, landmarker: object, monkeypatch: pytest.MonkeyPatch
):
    network, half = Wav2Lip(WIDTHS).eval(), read_encoder(encoder)
    bias = float(layers_of(half.layers[-1])[1].bias.detach()[0])

    def score_motion(network: Wav2Lip, *_: object) -> MotionScore:
        offset = bias - float(layers_of(network.audio_encoder[-2])[1].bias.detach()[0])
        return MotionScore(0.8, 0.9, 0.2 - offset)

    monkeypatch.setattr(join_halves, "score_motion", score_motion)
    joiner = HalfJoiner(network, half, ShapeEncoding(5), [prepared], landmarker)  # type: ignore[arg-type]
    *_, last = joiner.choose()
    assert last.opening == OpeningMap(SHUT, join_halves.WIDEST[-1], offset=pytest.approx(0.1), tall=TALL)
