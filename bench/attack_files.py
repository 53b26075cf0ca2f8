"""Hostile files for `bench.attack`, small on disk and large once they are read. Nothing in them does lasting harm."""

from __future__ import annotations

import base64
import io
import json
import pickle
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from inference.speaker import SyntheticClip, SyntheticClipOptions

BLOCK_BYTES = 4 << 20  # compressed once and repeated: a gigabyte is written in milliseconds
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ID3_COMPRESSED = 0x0008 | 0x0001  # frame flags of ID3v2.4: compressed, with the length of its content
MAX_ID3_BYTES = (1 << 28) - 1  # lengths have four groups of seven bits
ID3_LATIN1, ID3_LETTER = b"\x00", b"\xe9"  # a letter that takes two bytes in UTF-8
MP4_TIMESCALE = 1_000_000
OPUS_FRAME_MS = 60
OPUS_RATE = 48000
WIDTH_8K, HEIGHT_8K = 7680, 4320


def compress_repeated(byte: bytes, n_bytes: int, prefix: bytes = b"") -> bytes:
    """Return a zlib stream of the prefix and then `byte`, at least `n_bytes` times, up to whole blocks.

    A block that ends in a full flush refers to nothing before it, so its compressed bytes can be repeated.
    """
    n_blocks = -(-n_bytes // BLOCK_BYTES)
    block = byte * BLOCK_BYTES
    start = flush_block(prefix) if prefix else b""
    checksum = zlib.adler32(prefix)
    for _ in range(n_blocks):
        checksum = zlib.adler32(block, checksum)
    last = b"\x01\x00\x00\xff\xff"  # an empty stored block, marked as the last one
    return b"\x78\xda" + start + flush_block(block) * n_blocks + last + struct.pack(">I", checksum)


def flush_block(content: bytes) -> bytes:
    """Compress a block that depends on nothing before it, without a header."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(content) + compressor.flush(zlib.Z_FULL_FLUSH)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return one chunk: its length, kind, content and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def make_png(*chunks: bytes, side: int = 64) -> bytes:
    """Return a grey image with more chunks before its pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\x00" + b"\x80" * side) * side)
    parts = (png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b""))
    return PNG_SIGNATURE + b"".join(parts)


def png_with_profile(n_bytes: int) -> bytes:
    """Return a PNG whose compressed colour profile has so many bytes."""
    return make_png(png_chunk(b"iCCP", b"profile\x00\x00" + compress_repeated(b"\x00", n_bytes)))


def png_with_text(n_bytes: int) -> bytes:
    """Return a PNG whose compressed comment has so many bytes."""
    return make_png(png_chunk(b"zTXt", b"Comment\x00\x00" + compress_repeated(b"A", n_bytes)))


def synchsafe(number: int) -> bytes:
    """Return a number as ID3 writes it: four bytes of seven bits."""
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def mp3_with_tag(n_bytes: int) -> bytes:
    """Return an MP3 of half a second whose compressed title has so many bytes, at most 256 MiB in whole blocks."""
    n_blocks = min(n_bytes, MAX_ID3_BYTES - 1) // BLOCK_BYTES
    content = compress_repeated(ID3_LETTER, n_blocks * BLOCK_BYTES, prefix=ID3_LATIN1)
    length = synchsafe(n_blocks * BLOCK_BYTES + len(ID3_LATIN1))
    frame = b"TIT2" + synchsafe(len(content) + 4) + struct.pack(">H", ID3_COMPRESSED) + length + content
    return b"ID3\x04\x00\x00" + synchsafe(len(frame)) + frame + encode_audio("mp3", "libmp3lame", np.zeros(24000))


def encode_audio(container: str, codec: str, samples: np.ndarray, rate: int = OPUS_RATE) -> bytes:
    """Encode mono samples from -1 to 1."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        whole = (samples * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for piece in av.AudioResampler(stream.format.name, "mono", rate).resample(frame):
            out.mux(stream.encode(piece))
        out.mux(stream.encode())
    return buffer.getvalue()


def make_wav(seconds: float) -> bytes:
    """Return a WAV file of 220 Hz."""
    rate = 16000
    samples = 0.2 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate)
    return encode_audio("wav", "pcm_s16le", samples, rate)


def opus_of_silence(seconds: int) -> bytes:
    """Return an Ogg file of so many seconds: one encoded packet, repeated."""
    packet_samples = OPUS_RATE * OPUS_FRAME_MS // 1000
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="ogg") as out:
        stream = out.add_stream("libopus", rate=OPUS_RATE, options={"frame_duration": str(OPUS_FRAME_MS)})
        assert isinstance(stream, av.AudioStream)
        stream.layout, stream.bit_rate = "mono", 6000
        silence = np.zeros((1, packet_samples), np.int16)
        frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = OPUS_RATE, 0, Fraction(1, OPUS_RATE)
        encoded = stream.encode(frame) + stream.encode()
        content = bytes(encoded[0])
        for i in range(seconds * 1000 // OPUS_FRAME_MS):
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, Fraction(1, OPUS_RATE)
            packet.pts = packet.dts = i * packet_samples
            packet.duration = packet_samples
            out.mux(packet)
    return buffer.getvalue()


def encode_video(width: int, height: int, n_frames: int) -> bytes:
    """Encode an MP4 of one grey frame, repeated, at 25 frames a second."""
    buffer = io.BytesIO()
    frame = av.VideoFrame.from_ndarray(np.full((height * 3 // 2, width), 128, np.uint8), format="yuv420p")
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": "0"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(n_frames):
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def video_8k(n_frames: int) -> bytes:
    """Return an 8K MP4 of a few kilobytes."""
    return encode_video(WIDTH_8K, HEIGHT_8K, n_frames)


def mp4_of_many_samples(n_samples: int) -> bytes:
    """Return an MP4 of one frame whose index declares so many, a microsecond each.

    The tables are run lengths: one entry of the durations, of the sizes and of the chunks describes all samples.
    """
    mp4 = bytearray(encode_video(64, 64, 1))
    patch(mp4, b"mdhd", 12, MP4_TIMESCALE, n_samples)
    patch(mp4, b"stts", 8, n_samples, 1)
    patch(mp4, b"stsz", 4, 1, n_samples)  # a size other than 0 holds for all: none is listed
    patch(mp4, b"stsc", 12, n_samples)
    return bytes(mp4)


def patch(mp4: bytearray, box: bytes, offset: int, *values: int) -> None:
    """Overwrite 32-bit values in the only box of a kind. offset: after the name, from the version on."""
    at = mp4.index(box) + len(box) + offset
    mp4[at : at + 4 * len(values)] = struct.pack(f">{len(values)}I", *values)


class CodeOnLoad:
    """An object that creates a file when it is unpickled: the harmless part of code in a weights file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def weights_with_code(marker: Path) -> bytes:
    """Return a pickle, as older `.pth` files are, that creates a file when it is loaded."""
    return pickle.dumps({"state_dict": CodeOnLoad(marker)}, protocol=2)


def spoken_video(folder: Path) -> bytes:
    """Return an ordinary video of three seconds for the honest caller."""
    path = folder / "honest.mp4"
    SyntheticClip("NOW").write(path)
    return path.read_bytes()


def noisy_face(width: int = 1280, height: int = 720) -> bytes:
    """Return a JPEG of a rendered face with noise around it, so that videos of it are large."""
    clip = SyntheticClip("NOW", options=SyntheticClipOptions(width=width, height=height))
    face = next(iter(clip.frames())).frame
    noise = np.random.default_rng(0).integers(0, 256, face.shape, np.uint8)
    margin = width // 4  # the face is in the middle
    noise[:, margin:-margin] = face[:, margin:-margin]
    return cv2.imencode(".jpg", noise)[1].tobytes()


def sync_request(face: bytes, audio: bytes) -> bytes:
    """Return the JSON body of a lip-sync request."""
    fields = {"face": base64.b64encode(face).decode(), "audio": base64.b64encode(audio).decode()}
    return json.dumps({"task": "lipsync"} | fields).encode()
