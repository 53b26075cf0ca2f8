from __future__ import annotations

import numpy as np
import pytest

from inference.audio import Resampler, SampleBuffer
from inference.errors import InvalidRequest

RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 12_347)


def tone(rate: int, hz: float, seconds: float = 1.0) -> np.ndarray:
    t = np.arange(round(rate * seconds)) / rate
    return (10_000 * np.sin(2 * np.pi * hz * t)).astype(np.int16)


def resample(pcm: np.ndarray, rate: int, chunks: list[int]) -> np.ndarray:
    resampler, out, at, i = Resampler(rate), [], 0, 0
    while at < len(pcm):
        out.append(resampler.push(pcm[at : at + chunks[i % len(chunks)]]))
        at += chunks[i % len(chunks)]
        i += 1
    return np.concatenate([*out, resampler.finish()])


@pytest.mark.parametrize("rate", RATES)
def test_chunks_make_no_difference(rate: int):
    pcm = (np.random.default_rng(rate).standard_normal(rate) * 5000).astype(np.int16)
    whole = resample(pcm, rate, [len(pcm)])
    assert len(whole) == 16000
    np.testing.assert_array_equal(resample(pcm, rate, [1, 3, 977, 12]), whole)
    np.testing.assert_array_equal(resample(pcm, rate, [rate // 100]), whole)


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_is_neither_changed_nor_shifted(rate: int):
    """Within three levels of 10,000, except at the ends."""
    out = resample(tone(rate, 700), rate, [1000])
    np.testing.assert_allclose(out[200:-200], tone(16000, 700)[200:-200], atol=3)


@pytest.mark.parametrize("target", [8_000, 24_000, 44_100, 48_000])
def test_a_tone_is_converted_to_other_rates(target: int):
    resampler = Resampler(22_050, target)
    out = np.concatenate([resampler.push(tone(22_050, 700)), resampler.finish()])
    assert len(out) == target
    np.testing.assert_allclose(out[300:-300], tone(target, 700)[300:-300], atol=3)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_frequencies_above_8_khz_are_removed(rate: int):
    """A tone of 11 kHz would alias to 5 kHz."""
    assert np.abs(resample(tone(rate, 11_000), rate, [999])[200:-200]).max() < 10


def test_16_khz_is_passed_through():
    pcm = tone(16_000, 3000)
    np.testing.assert_array_equal(resample(pcm, 16_000, [7]), pcm)


def test_full_scale_does_not_wrap_around():
    square = np.where(np.arange(24_000) // 40 % 2, 32767, -32768).astype(np.int16)
    out = resample(square, 24_000, [500]).astype(int)
    assert out.max() == 32767
    assert np.abs(np.diff(out)).max() < 65536
    middle = out[20:40]  # half a wave: all of one sign
    assert (np.sign(out[15:25]) == np.sign(out[20])).all(), middle


@pytest.mark.parametrize("rate", [0, -16_000, 3_999, 192_001, 16_000.0, True, None])
def test_invalid_rates_are_rejected(rate: object):
    with pytest.raises(InvalidRequest, match="expected 4000 to 192000 samples a second"):
        Resampler(rate)


def test_the_buffer_is_silent_around_its_samples():
    buffer = SampleBuffer()
    buffer.append(np.array([1, 2, 3], np.int16))
    buffer.append(np.array([4], np.int16))
    assert buffer.read(-2, 6).tolist() == [0, 0, 1, 2, 3, 4, 0, 0]
    assert buffer.read(5, 7).tolist() == [0, 0]
    assert buffer.end == 4


def test_the_buffer_discards_from_the_front():
    buffer = SampleBuffer()
    buffer.append(np.arange(10, dtype=np.int16))
    buffer.discard_before(4)
    buffer.discard_before(2)  # already discarded
    assert buffer.read(4, 6).tolist() == [4, 5]
    with pytest.raises(ValueError, match="from 3 on requested; those before 4 were discarded"):
        buffer.read(3, 6)
    buffer.discard_before(100)
    buffer.append(np.array([7], np.int16))
    assert buffer.read(10, 12).tolist() == [7, 0]
