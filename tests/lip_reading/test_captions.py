import pysubs2
import pytest

from inference.lip_reading import Word
from inference.lip_reading.captions import LINE_WIDTH, cut_captions, format_captions


def words(text: str, start: float = 0.0, step: float = 0.4) -> list[Word]:
    return [Word(w, start + i * step, start + i * step + 0.3, 0.9) for i, w in enumerate(text.split())]


def test_srt_by_hand():
    assert format_captions(words("BIN BLUE AT"), "srt").strip() == "1\n00:00:00,000 --> 00:00:01,100\nBIN BLUE AT"


def test_vtt_has_its_header():
    assert format_captions(words("BIN BLUE"), "vtt").startswith("WEBVTT")


def test_no_words_make_no_captions():
    assert format_captions([], "srt").strip() == ""
    assert format_captions([], "vtt").strip() == "WEBVTT"


def test_a_pause_ends_a_caption():
    parsed = pysubs2.SSAFile.from_string(format_captions(words("BIN BLUE") + words("SET RED", start=3.0), "srt"))
    assert [event.plaintext for event in parsed] == ["BIN BLUE", "SET RED"]
    assert parsed[1].start == 3000


def test_a_single_short_word_stays_readable():
    parsed = pysubs2.SSAFile.from_string(format_captions([Word("A", 1.0, 1.04, 0.5)], "srt"))
    assert parsed[0].end - parsed[0].start == 800


def test_tsv_by_hand():
    table = format_captions(words("BIN BLUE") + words("SET", start=3.0), "tsv")
    assert table == "start\tend\ttext\n0\t800\tBIN BLUE\n3000\t3800\tSET\n"


def test_a_caption_stays_for_its_reading_time_if_there_is_room():
    fast = words("PLACE GREEN WITH X SEVEN PLEASE", step=0.1)  # 31 characters in 0.8 s
    (alone,) = cut_captions(fast)
    assert alone.end_s == pytest.approx(31 / 17)
    first, second = cut_captions([*fast, *words("SET RED", start=1.7)])
    assert first.end_s == second.start_s == 1.7


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_long_speech_is_cut_into_two_lines_of_42_and_six_seconds(form: str):
    parsed = pysubs2.SSAFile.from_string(format_captions(words("PLACE GREEN WITH SEVEN AGAIN " * 20, step=0.32), form))
    assert len(parsed) > 4
    for event, following in zip(parsed, [*parsed[1:], None], strict=True):
        lines = event.plaintext.split("\n")
        assert len(lines) <= 2
        assert max(map(len, lines)) <= LINE_WIDTH
        assert event.end - event.start <= 6000
        assert following is None or event.end <= following.start
    assert (
        " ".join(event.plaintext.replace("\n", " ") for event in parsed).split()
        == ("PLACE GREEN WITH SEVEN AGAIN " * 20).split()
    )
