"""The timeline of a video of which only segments speak."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from inference.audio import MEL_WINDOW, N_MELS, SAMPLE_RATE, cut_window
from inference.audio import window_start as start_of_window
from inference.audio.mel import SILENCE
from inference.lip_sync.audio_inputs import SpokenAudio
from inference.lip_sync.audio_tracks import SplicedTrack, TrackPart, common_format, convert_spool
from inference.lip_sync.options import SyncMode, SyncOptions
from inference.lip_sync.preprocess import FaceFrame
from inference.lip_sync.segments import PlacedSegment, place_segments
from inference.lip_sync.timeline import SyncTimeline, choose_output_rate
from inference.media import VideoInfo
from inference.media.audio_convert import AudioFormat, Samples
from inference.media.audio_spool import AudioSpool

# Modes in which a segment ends with its audio if that is shorter; in the others silence follows.
ENDING_MODES: tuple[SyncMode, ...] = ("cut_off", "loop", "bounce")


class SegmentTimeline(SyncTimeline):
    """The output is as long as the video; in each segment the mouth and the audio track come from its audio file.

    Elsewhere frames pass unchanged, with the video's own audio. A segment starts and ends with a frame.
    """

    def __init__(
        self,
        video: VideoInfo,
        audios: Mapping[int, SpokenAudio],
        own_audio: AudioSpool | None,
        options: SyncOptions,
        n_source: int,
    ) -> None:
        """Place the segments. audios: by their index. own_audio: of the video; None if it has none.

        The spools of other formats are replaced by converted ones, which `close` deletes.
        Raises: InvalidRequest if a segment is beyond the video or its audio; StorageError if the disk is full.
        """
        self.fps, self.n_frames, self.n_source = choose_output_rate(video, options), n_source, n_source
        self.is_remapped, self.is_covered = False, True
        self.is_rounded_down, self.primaries = not video.is_still, video.primaries
        self._offset = options.mel_offset_frames
        self._audios = audios
        self._segments = place_segments(
            options.segments,
            n_source,
            self.fps,
            {i: one.duration_s for i, one in audios.items()},
            ends_with_audio=options.sync_mode in ENDING_MODES,
        )
        self._converted: list[AudioSpool] = []
        try:
            self.audio = self._splice(own_audio)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Delete the converted tracks. May be called twice."""
        for spool in self._converted:
            spool.close()

    def mark_outside(self, face_frames: Iterable[FaceFrame]) -> Iterator[FaceFrame]:
        """Yield the frames of the output; those outside of segments without a box."""
        borders = {k for one in self._segments for k in (one.first, one.end)}
        is_inside = False
        for k, face_frame in enumerate(face_frames):
            is_inside = self._is_inside(k) if k in borders else is_inside
            yield face_frame if is_inside else replace(face_frame, box=None, is_outside=True, is_passed_on=False)

    def _is_inside(self, frame: int) -> bool:
        return any(one.first <= frame < one.end for one in self._segments)

    def windows(self) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        """Yield the (80, 16) mel of each frame; that of silence outside of segments."""
        next_frame = 0
        for segment in self._segments:
            yield from silent_windows(segment.first - next_frame)
            part = self._samples_of(segment)
            for k in range(segment.end - segment.first):
                yield cut_window(part, start_of_window(k, float(self.fps), self._offset))
            next_frame = segment.end
        yield from silent_windows(self.n_frames - next_frame)

    def _samples_of(self, segment: PlacedSegment) -> Samples:
        """Return the samples that a segment speaks; at least one."""
        samples = self._audios[segment.audio].samples
        first = min(round(segment.audio_start_s * SAMPLE_RATE), len(samples) - 1)
        return samples[first : max(round(segment.audio_end_s * SAMPLE_RATE), first + 1)]

    def _splice(self, own_audio: AudioSpool | None) -> SplicedTrack:
        spools = {i: one.spool for i, one in self._audios.items()}
        audio_format = common_format([*spools.values(), *([] if own_audio is None else [own_audio])])
        converted = {i: self._convert(spool, audio_format) for i, spool in spools.items()}
        base = None if own_audio is None else self._convert(own_audio, audio_format)
        parts = [self._part_of(one, converted[one.audio]) for one in self._segments]
        return SplicedTrack(base, parts, audio_format, round(self.n_frames / self.fps * audio_format.rate))

    def _convert(self, spool: AudioSpool, audio_format: AudioFormat) -> AudioSpool:
        converted = convert_spool(spool, audio_format)
        if converted is not spool:
            self._converted.append(converted)
        return converted

    def _part_of(self, segment: PlacedSegment, spool: AudioSpool) -> TrackPart:
        start, end = (round(frame / self.fps * spool.rate) for frame in (segment.first, segment.end))
        offset, limit = (round(at_s * spool.rate) for at_s in (segment.audio_start_s, segment.audio_end_s))
        return TrackPart(start, end, spool, offset, limit)


def silent_windows(n: int) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Yield n windows of silence."""
    for _ in range(n):
        yield np.full((N_MELS, MEL_WINDOW), SILENCE, np.float32)


def make_timeline(
    video: VideoInfo,
    spoken: Mapping[int, SpokenAudio],
    own_audio: AudioSpool | None,
    options: SyncOptions,
    n_source: int | None,
) -> SyncTimeline:
    """Plan the output. Raises: InvalidRequest if a segment is beyond the video or its audio; StorageError."""
    if options.segments and n_source is not None:
        return SegmentTimeline(video, spoken, own_audio, options, n_source)
    return SyncTimeline(video, spoken[0].spool, spoken[0].samples, options, n_source)
