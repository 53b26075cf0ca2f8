"""Decoding of the alpha plane of WebM: FFmpeg's own decoders of VP8 and VP9 leave it out, those of libvpx do not."""

from __future__ import annotations

import av

ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def make_alpha_decoder(stream: av.VideoStream) -> av.VideoCodecContext | None:
    """Return a decoder of frames with alpha; None if the stream declares none, or is in another codec."""
    name = ALPHA_DECODERS.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode") != "1" or name not in av.codecs_available:
        return None
    decoder = av.CodecContext.create(name, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.extradata = stream.codec_context.extradata
    return decoder
