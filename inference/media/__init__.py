"""Reading and writing of media files.

`inference.media.s3` is not imported here: it needs tenacity, which the sandboxed decoder process does not load.
"""

from inference.media.files import Source
from inference.media.frames import Clip, Frame
from inference.media.limits import MediaLimits
from inference.media.open import open_media
from inference.media.protocols import MediaOpener, OpenedMedia
from inference.media.sandbox.decoder import SandboxedDecoder
from inference.media.video import Media, VideoInfo

__all__ = [
    "Clip",
    "Frame",
    "Media",
    "MediaLimits",
    "MediaOpener",
    "OpenedMedia",
    "SandboxedDecoder",
    "Source",
    "VideoInfo",
    "open_media",
]
