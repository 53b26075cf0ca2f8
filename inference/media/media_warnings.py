"""Warnings about media that are not used as stored. The sandboxed decoder can report no others."""

from __future__ import annotations

INTERLACED = "the video is interlaced; it was deinterlaced"
TRANSPARENT = "transparent parts are shown over white"
RESIZED = "the frame size changes; frames of another size than the first are fitted into it, with black bars"
LONG_HEADER = "the header declares a longer video than the file contains"
TONE_MAPPED_PQ = "the video is HDR (PQ); it was tone-mapped to SDR"
TONE_MAPPED_HLG = "the video is HDR (HLG); it was tone-mapped to SDR"
VIDEO_WARNINGS = (TONE_MAPPED_PQ, TONE_MAPPED_HLG, INTERLACED, TRANSPARENT, RESIZED, LONG_HEADER)
INVERTED = "one audio channel is the other inverted; the networks take their difference, since their sum is silence"
CLOCK_JUMP = (
    "the clock of the audio jumps by over 10 minutes, or more than a file of this size may pause; "
    "the audio continues without that pause"
)
AUDIO_WARNINGS = (CLOCK_JUMP,)
