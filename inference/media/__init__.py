"""Reading and writing of media files.

`fetch` and `store` are not imported here: they need tenacity, which the sandboxed decoder process does not load.
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
