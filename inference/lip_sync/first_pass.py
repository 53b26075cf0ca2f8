"""Reading of a video before the output is planned or made: its length, the face that speaks, its mouths."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

from inference.faces import Landmarker
from inference.lip_sync.active_speaker import ActiveSpeaker
from inference.lip_sync.box_cache import BoxTrack, CachingFaceLocator
from inference.lip_sync.mouth_bank import MouthBank, collect_mouths
from inference.lip_sync.options import VIDEO_DETAIL, SyncOptions
from inference.lip_sync.preprocess import downscale_frames, find_boxes, smooth_boxes
from inference.lip_sync.speaker_track import check_box_count, input_rate, track_auto, track_boxes, track_point
from inference.lip_sync.timeline import check_not_still, choose_output_rate, count_source_frames, needs_source_length
from inference.media import MediaLimits, MediaOpener, Source, VideoInfo
from inference.media.audio_spool import AudioSpool
from inference.stage_timer import StageClock

MIN_FRAMES_FOR_MOUTHS = 250  # frames of a video that are searched for mouths, though fewer are shown


@dataclass(frozen=True)
class FirstPass:
    """Reads a video as often as the options need, frame by frame. Its files are closed again."""

    face: Source
    open_media: MediaOpener
    limits: MediaLimits
    options: SyncOptions
    clock: StageClock

    @property
    def is_needed(self) -> bool:
        options = self.options
        return options.sync_mode is not None or bool(options.segments) or options.active_speaker is not None

    def measure(self) -> tuple[VideoInfo, int | None]:
        """Return what the video declares, and the number of its frames if the length of the output depends on it.

        Raises: InvalidRequest if an option does not apply to an image, or to so many frames; the errors of decoding.
        """
        with self.open_media(self.face, self.limits) as media:
            video = media.video
        check_not_still(video, self.options)
        fps = choose_output_rate(video, self.options)
        speaker = self.options.active_speaker
        if speaker is not None and speaker.boxes is not None:
            rate = input_rate(video, fps)
            check_box_count(speaker, self._count_frames(rate), rate)
        return video, self._count_frames(fps) if needs_source_length(video, self.options) else None

    def track_speaker(
        self,
        speaker: ActiveSpeaker,
        landmarker: Landmarker,
        own_audio: AudioSpool | None,
        fps: Fraction,
        n_needed: int,
    ) -> BoxTrack:
        """Return the boxes of the face that speaks. own_audio: of the video. n_needed: frames, at `fps`.

        Raises: InvalidRequest if the face is not there.
        """
        scale = self.options.resize_factor
        with self.open_media(self.face, self.limits) as media, self.clock.stage("detect"):
            clips = self.clock.watch("decode", media.read_clips(float(fps)))
            frames = downscale_frames(clips, scale, self.options.shrinking)
            rates = fps, input_rate(media.video, fps)
            if speaker.boxes is not None:
                return track_boxes(frames, landmarker, speaker.boxes, rates, scale, n_needed)
            if speaker.point is not None:
                return track_point(frames, landmarker, speaker, rates, scale, n_needed)
            return track_auto(frames, landmarker, own_audio, fps, n_needed)

    def count_located(self, n_needed: int) -> int:
        """Return in how many frames the face is located at most. n_needed: frames shown."""
        options = self.options
        if options.enhance != VIDEO_DETAIL or options.active_speaker is not None:
            return n_needed
        return max(n_needed, MIN_FRAMES_FOR_MOUTHS)

    def collect_mouths(
        self, locate: CachingFaceLocator, landmarker: Landmarker, fps: Fraction, n_needed: int
    ) -> MouthBank | None:
        """Return mouths of the video, to take detail from; None for an image. n_needed: frames shown, at `fps`.

        `locate` is at the first frame again afterwards, and has the faces in memory.
        """
        options, n_frames = self.options, self.count_located(n_needed)
        with self.open_media(self.face, self.limits) as media, self.clock.stage("enhance"):
            if media.video.is_still:
                return None
            clips = self.clock.watch("decode", media.read_clips(float(fps)))
            frames = locate.count_frames(downscale_frames(clips, options.resize_factor, options.shrinking))
            located = self.clock.watch("detect", find_boxes(islice(frames, n_frames), locate, options.pads))
            bank = collect_mouths(smooth_boxes(located, options.smoothing), landmarker)
        locate.rewind()
        return bank

    def _count_frames(self, fps: Fraction) -> int:
        with self.open_media(self.face, self.limits) as media:
            return count_source_frames(self.clock.watch("decode", media.read_clips(float(fps))))
