"""The cases of `bench.cases`: inputs that people really have, what is done with each, and what is expected.

A number names a kind of input: A1 to A42 once went wrong or badly, P1 to P23 did not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bench.case_checks import (
    Check,
    as_loud_as,
    audio_in_place,
    coloured,
    frames,
    in_sync,
    mouth_at,
    moves,
    not_combed,
    reads,
    reads_at_most,
    refused,
    region,
    shows,
    silent_about,
    video,
    warns,
)

WORDS = "BIN BLUE WITH M SEVEN AGAIN"  # of the clip that the inputs are made from
OTHER_WORDS = "BIN WHITE AT A TWO PLEASE"
SECOND, VOICE, LONG_VOICE = "case_inputs/second.wav", "voices/base.wav", "case_inputs/long.wav"
SMALL = "stills/small.jpg"
PATCHES = [(0xB0, 0x20, 0x20), (0x20, 0xB0, 0x20), (0x20, 0x20, 0xB0)]
PATCHES += [(0xC8, 0xA8, 0x90), (0x10, 0x10, 0x10), (0xF0, 0xF0, 0xF0)]
# Where the mouths are in faces.sh's videos, in parts of the frame, by frame number.
NEAR, FAR, LAST = (0.57, 0.47), (0.03 + 0.285, 0.03 + 0.235), (0.47 + 0.285, 0.47 + 0.235)
FIRST_PERSON, SECOND_PERSON = (0.27, 0.53), (0.756, 0.44)

NOT_SCRIPTED = {
    "P12": "a drawn face, which no script makes",
    "P14": "folders without permissions, which root may write all the same",
}


@dataclass(frozen=True)
class Case:
    """An input, what is done with it, and what is expected.

    source, audio: paths in the folder of inputs; its first folder is the script that makes it. options: of the job.
    """

    number: str
    job: str
    source: str
    checks: tuple[Check, ...]
    audio: str = VOICE
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        chosen = "".join(f" {name}={value}" for name, value in self.options.items())
        heard = f" + {self.audio}" if self.source == SMALL else ""
        return f"{self.job} {self.source}{heard}{chosen}"

    @property
    def scripts(self) -> set[str]:
        return {path.partition("/")[0] for path in (self.source, self.audio)}


def sync(number: str, sources: str, *checks: Check, audio: str = VOICE, **options: Any) -> Iterator[Case]:
    """Lip-sync each source, `folder/name name ...`."""
    for source in spread(sources):
        yield Case(number, "sync", source, checks, audio, options)


def voice(number: str, sources: str, *checks: Check, gain_db: float | None = None) -> Iterator[Case]:
    """Lip-sync a small still to each audio file. gain_db: expect its audio in its place, so much louder."""
    for source in spread(sources):
        heard = () if gain_db is None else (as_loud_as(source, gain_db), audio_in_place(VOICE, 0.5, 2.5))
        yield Case(number, "sync", SMALL, (*checks, *heard), source)


def read(number: str, sources: str, *checks: Check, job: str = "read", **options: Any) -> Iterator[Case]:
    """Read lips in each source."""
    for source in spread(sources):
        yield Case(number, job, source, checks, options=options)


def spread(sources: str) -> Iterator[str]:
    folder, _, names = sources.partition("/")
    return (f"{folder}/{name}" for name in names.split())


def cases_of_opening() -> Iterator[Case]:
    """Which files are opened, and how they are turned."""
    a_still = (video(1.2, (700, 700), (25, 25)), moves())
    yield from sync("A1", "stills/plain.jpg progressive.jpg jpeg.png", *a_still, audio=SECOND)
    yield from read("A1", "stills/plain.jpg", refused("still image"))
    yield from read("A1", "stills/plain.jpg", frames(1, 1), job="build")
    plain = (reads(WORDS), silent_about("face"))
    yield from read("A9", "case_inputs/mirrored.mp4 transposed.mp4", *plain)
    upright = (shows("case_inputs/plain.mp4"), video(3.0, (360, 288)))
    yield from sync("A9", "case_inputs/mirrored.mp4 transposed.mp4", *upright)
    for number in (1, 2, 3, 4, 6, 7, 8):
        names = f"exif/o{number}.jpg o{number}.png o{number}.webp"
        yield from sync("A10", names, video(1.2, (700, 560)), shows("exif/upright.png"), audio=SECOND)
    yield from sync(
        "A10", "case_inputs/o5.jpg o5.png o5.webp", video(1.2), shows("case_inputs/upright.png"), audio=SECOND
    )
    heic = (video(1.2, (1400, 1400)), moves())
    yield from sync("A11", "case_inputs/grid.heic grid_turned.heic", *heic, audio=SECOND)
    yield from sync("A12", "stills/plain.avif", *a_still, audio=SECOND)
    yield from sync("A26", "stills/48mp.jpg 36mp.jpg", refused("at most", "pixels expected"), audio=SECOND)
    yield from sync("A29", "stills/anim.webp", refused("animated WebP"), audio=SECOND)
    yield from sync("A30", "stills/plain.tiff", refused("TIFF"), audio=SECOND)
    yield from sync("A30", "stills/plain.jp2", refused("JPEG 2000"), audio=SECOND)
    yield from voice("A30", "voices/w64.w64", refused("W64"))
    white = region((slice(0, 12), slice(0, 12)), 245, 255, "white behind the transparent parts")
    yield from sync("A36", "stills/cutout.png cutout.webp", warns("transparent"), white, moves(), audio=SECOND)
    for turn in (90, 180, 270):
        yield from sync("P2", f"rotation/rot{turn}.mp4", video(3.0, (480, 400)), shows("rotation/upright.mp4"))
    kinds = "stills/cmyk.jpg grey.jpg grey.png palette.png 16bit_alpha.png plain.bmp plain.webp"
    yield from sync("P23", kinds, *a_still, audio=SECOND)
    yield from sync("P23", "stills/odd.jpg", video(1.2, (642, 480)), moves(), audio=SECOND)
    yield from sync("P23", "stills/12mp.jpg", video(1.2, (4032, 3024)), audio=SECOND)


def cases_of_streams() -> Iterator[Case]:
    """Which stream of a file is taken, and what its header says."""
    yield from read("A17", "case_inputs/ten_hours.mkv", reads(WORDS))
    yield from sync("A17", "case_inputs/ten_hours.mkv", video(3.0, (360, 288)))
    yield from read("A17", "containers/subtitles_longer.mkv subtitles_longer.mp4", reads(WORDS))
    yield from read("A18", "containers/longer_header.mkv longer_header.flv", reads(WORDS), warns("header"))
    yield from read("A19", "containers/thumb_first.mp4 cover.mp4", reads(WORDS))
    yield from sync("A19", "containers/thumb_first.mp4", video(3.0, (360, 288)))
    yield from read("A19", "containers/thumb_first.mp4", frames(70, 80), job="build")
    yield from read("A20", "containers/preview_first.mp4", reads(WORDS))
    yield from sync("A20", "containers/preview_first.mp4", video(3.0, (360, 288)))
    yield from voice("A21", "codecs/second_default.mkv", audio_in_place("containers/plain.mkv", 0.5, 2.5))
    yield from voice("A22", "codecs/silent_first.mov", warns("silent_audio"))
    turned = region((slice(None), slice(0, 100)), 0, 24, "black bars beside the portrait", at=60)
    yield from sync("A33", "turns_midway/turns.ts", video(3.0, (640, 360)), warns("frame size changes"), turned)
    yield from sync("A34", "interlaced/i1080.mts", warns("interlaced"), not_combed())
    yield from read("A34", "interlaced/i576.mp4", reads(WORDS))
    names = "containers/plain.mp4 recorder.webm fragmented.mp4 joined.ts"
    yield from read("P7", names.replace(" joined.ts", ""), reads(WORDS))
    yield from read("P7", "containers/joined.ts", reads(f"{WORDS} {WORDS}"))
    wrapped = "plain.flv plain.mkv plain.ts yuv444.mp4 prores422.mov mjpeg.avi odd.mp4 alpha.webm alpha.mov"
    yield from read("P8", f"containers/{wrapped}", reads(WORDS))
    coded = "xvid.avi h264b.avi raw.h264 old_phone.3gp dvd.vob camcorder.dv broadcast.mxf av1.mp4 hevc.mp4 theora.ogv"
    yield from read("P8", f"codecs/{coded} win.wmv archive.mkv timecode.mov", reads(WORDS))
    yield from read("P8", "codecs/whatsapp.mp4", reads(WORDS, n_wrong=1))
    yield from sync("P21", "containers/short_pictures.mp4 sound_longer.mp4 picture_longer.mp4", video(3.0, (360, 288)))
    bright = region((slice(None), slice(None)), 60, 255, "no black frame", at=70)
    yield from sync("P21", "containers/short_pictures.mp4 one_frame.mp4", bright)


def cases_of_audio() -> Iterator[Case]:
    """Clocks, lengths and forms of audio."""
    for name in spread("case_inputs/late_click.mp4 late_click.mkv late_click.webm"):
        yield from read("A6", name, in_sync(), job="burn")
        yield Case("A6", "sync", name, (video(3.0, faceless=(1, 1)), in_sync()), name)
    yield from voice("A6", "audio_offset/click.mp4", video(3.0))
    for name in spread("case_inputs/gap_click.mp4 gap_click.mkv gap_click.webm"):
        yield from read("A7", name, in_sync(), job="burn")
        yield Case("A7", "sync", name, (video(3.0, faceless=(1, 1)), in_sync()), name)
    for name in ("late_sound.mp4", "late_sound.mkv"):
        late = audio_in_place(f"audio_offset/{name}", 1.5, 3.3)
        yield from read("A6", f"audio_offset/{name}", reads(WORDS), late, job="burn")
        yield Case("A6", "sync", f"audio_offset/{name}", (video(3.8), late), f"audio_offset/{name}")
    yield from read(
        "A6", "audio_offset/late_picture.mp4", audio_in_place("audio_offset/late_picture.mp4", 1, 2.5), job="burn"
    )
    kept = (audio_in_place("containers/plain.mkv", 0.3, 0.95), audio_in_place("containers/plain.mkv", 2.05, 2.8))
    for number, names in (("A7", "gap.mkv"), ("A8", "gap.mp4")):
        yield from read(number, f"audio_gap/{names}", reads(WORDS), *kept, job="burn")
        yield Case(number, "sync", f"audio_gap/{names}", (video(3.0), *kept), f"audio_gap/{names}")
    yield from voice("A7", "audio_gap/gap_only.webm", video(3.0), *kept)
    yield from voice("A8", "audio_gap/gap_only.m4a", video(3.0), *kept)
    yield from read("A8", "codecs/lost_sound.mp4", audio_in_place("containers/plain.mkv", 2.0, 2.8), job="burn")
    yield from voice("A16", "case_inputs/quiet_start.aac", video(85.0))
    yield from voice("A23", "voices/antiphase.wav", warns("inverted"), moves(), gain_db=0)
    yield from voice("A24", "voices/silence.wav", warns("silent_audio"), moves(is_expected=False), video(2.0))
    yield from voice("A25", "voices/one_sample.wav", warns("silent_audio"), frames(1, 1))
    yield from voice("A25", "voices/none.wav", refused("audio"))
    yield from voice("A25", "voices/ms10.wav", frames(1, 1))
    cut = "edit_list_click/cut.mp4 cut.mkv cut.ts"
    yield from read("P3", cut, in_sync(), job="burn")
    sizes = "tts_ffffffff.wav tts_7fffffff.wav tts_2e9.wav tts_7ffff000.wav tts_0.wav tts_riff0.wav odd_byte.wav"
    spoken = (video(3.0), moves())
    yield from voice("P4", f"voices/{sizes}", *spoken, as_loud_as(VOICE), audio_in_place(VOICE, 0.5, 2.5))
    samples = "f32.wav f64.wav s24.wav u8.wav mulaw8k.wav alaw8k.wav hires96k.wav hires192k.flac ch3.wav left_only.wav"
    yield from voice("P5", f"voices/{samples} s71.wav", *spoken, gain_db=0)
    yield from voice("P5", "voices/nan.wav", *spoken, as_loud_as(VOICE), audio_in_place(VOICE, 0.2, 0.95))
    yield from voice("P5", "voices/ch16.wav loud.wav stereo.wav", video(3.0), moves())
    yield from voice("P5", "voices/dc.wav", video(2.0))
    yield from voice("P5", "voices/centre51.wav", video(3.0), moves(), gain_db=-3)
    packed = "a.mp3 art.mp3 cover.m4a opus.ogg vorbis.ogg opus.webm flac.flac alac.m4a aiff.aiff caf.caf ac3.ac3"
    yield from voice("P6", f"voices/{packed} mp2.mp2 rf64.wav", *spoken, gain_db=0)
    # FFmpeg's WMA decoder leaves out the first frame.
    yield from voice("P6", "voices/wma.wma", *spoken, as_loud_as(VOICE), audio_in_place(VOICE, 0.5, 2.5, limit_s=0.09))
    yield from voice("P6", "voices/raw.pcm", refused())


def cases_of_faces() -> Iterator[Case]:
    """Cuts, small and turned faces, and faces that come and go."""
    near = mouth_at("faces/punch_in.mp4", {50: NEAR, 51: NEAR, 60: NEAR, 100: LAST, 101: LAST, 110: LAST}, 0.09)
    yield from sync("A2", "faces/punch_in.mp4", video(5.0, (720, 720)), near, audio=LONG_VOICE)
    other = {51: SECOND_PERSON, 60: SECOND_PERSON, 101: FIRST_PERSON, 102: FIRST_PERSON, 110: FIRST_PERSON}
    yield from sync(
        "A3", "faces/cuts.mp4", video(5.0, (1280, 720)), mouth_at("faces/cuts.mp4", other, 0.08), audio=LONG_VOICE
    )
    both = reads(f"{WORDS} {OTHER_WORDS}")
    for is_exact in (False, True):
        yield from read("A4", "read_cuts/elsewhere.mp4 same_place.mp4", both, exact=is_exact)
        yield from read("A4", "case_inputs/nearer.mp4", both, exact=is_exact)
    yield from read("A5", "faces/punch_in.mp4 cuts.mp4", frames(140, 201), job="build")
    small = mouth_at("faces/tiny4k_500.mp4", {5: (0.60 + 0.57 * 500 / 3840, 0.324 + 0.47 * 500 / 2160)}, 0.03)
    yield from sync("A27", "faces/tiny4k_500.mp4", video(1.2, (3840, 2160)), small, audio=SECOND)
    found = "faces/tiny4k_800.mp4 tiny4k_400.mp4 tiny4k_300.mp4 tiny4k_200.mp4"
    yield from sync("A27", found, video(1.2, (3840, 2160)), audio=SECOND)
    yield from sync("A27", "case_inputs/hd_250.mp4", video(1.2, (1920, 1080)), audio=SECOND)
    for name, place in (("sideways", (0.53, 0.57)), ("upside_down", (0.43, 0.53)), ("tilted40", (0.58, 0.52))):
        turned = mouth_at(f"faces/{name}.mp4", {5: place, 40: place}, 0.08)
        yield from sync("A28", f"faces/{name}.mp4", video(3.0), turned)
    yield from sync("P9", "faces/enters_late.mp4", video(3.0, faceless=(30, 40)))
    yield from sync("P9", "faces/leaves.mp4", video(3.0, faceless=(30, 40)))
    yield from sync("P9", "faces/black_between.mp4", video(5.0, faceless=(25, 35)), audio=LONG_VOICE)
    for face, place in ((0, (0.285, 0.47)), (1, (0.77, 0.6))):
        yield from sync(
            "P10", "faces/two_people.mp4", video(3.0), mouth_at("faces/two_people.mp4", {20: place}, 0.1), face=face
        )
    yield from sync("P10", "faces/two_people.mp4", refused("face 2"), face=2)
    yield from sync("P11", "faces/hand_over_mouth.mp4 very_dark.mp4 huge_cut.mp4", video(3.0))
    yield from sync("P11", "faces/half_face.mp4", refused("face"))


def cases_of_colour_and_rate() -> Iterator[Case]:
    """Colours as players show them, HDR, frame rates and frames that are held."""
    charts = "colours/chart_bt709_pc.mp4 chart_smpte170m_tv.mp4 chart_smpte170m_pc.mp4 chart_untagged.mp4"
    yield from sync("A13", charts, video(1.2, (1280, 720)), coloured(PATCHES), audio=SECOND)
    yield from read("A13", charts, coloured(PATCHES), job="burn")
    # hdr.sh puts the white of SDR at 100 cd/m2, not at the 203 of BT.2408.
    as_sdr = shows("hdr/sdr.mp4", gain=(100 / 203) ** (1 / 2.4))
    yield from sync("A14", "hdr/hlg.mov", warns("HLG"), as_sdr)
    yield from sync("A14", "hdr/pq.mov", warns("PQ"), as_sdr)
    yield from read("A15", "case_inputs/hdr_words/hlg.mov", reads(WORDS), warns("HLG"))
    yield from read("A15", "case_inputs/hdr_words/pq.mov", reads(WORDS), warns("PQ"))
    slow = video(3.0, fps=(25, 25))
    yield from sync("A31", "containers/fps5.mp4", slow)
    yield from sync("A31", "stills/anim.gif anim.png", video(3.0, (350, 350), (10, 25)))
    yield from sync("A31", "containers/slideshow_1fps.mp4", slow)
    yield from sync("A32", "case_inputs/browser.webm", video(3.0, (700, 700), (20, 31)))
    yield from read("A35", "containers/jump.ts", reads_at_most(12))
    yield from read("A35", "codecs/held.mp4", reads_at_most(12))
    yield from read("P1", "vfr_phone/vfr.mp4", reads(WORDS), audio_in_place("vfr_phone/vfr.mp4", 0.5, 2.5), job="burn")
    yield from sync("P1", "vfr_phone/vfr.mp4", video(3.0, (360, 288), (20, 30)))
    yield from read("P22", "containers/fps12.mp4 slow240.mp4 slow300.mp4 resized.ts", reads(WORDS))
    yield from read("P22", "containers/fps5.mp4", frames(70, 90))


def all_cases() -> list[Case]:
    """Return every case that the engines answer; `bench.case_commands` has those of the terminal and of clients."""
    topics = (cases_of_opening, cases_of_streams, cases_of_audio, cases_of_faces, cases_of_colour_and_rate)
    return [case for topic in topics for case in topic()]
