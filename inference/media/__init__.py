"""Media in and out.

`fetch` and `store` are imported by name: with them comes boto3, which the decoding child does without.
"""

from inference.media.child import MediaChild
from inference.media.door import MediaDoor, OpenedMedia
from inference.media.frames import Clip, Frame
from inference.media.limits import MediaLimits
from inference.media.open import Media, Source, VideoInfo, open_media

__all__ = [
    "Clip",
    "Frame",
    "Media",
    "MediaChild",
    "MediaDoor",
    "MediaLimits",
    "OpenedMedia",
    "Source",
    "VideoInfo",
    "open_media",
]
