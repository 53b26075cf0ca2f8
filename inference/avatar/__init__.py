"""Live avatars: packages on disk, and sessions that speak."""

from inference.avatar.catalogue import find_named, list_avatars
from inference.avatar.package import AvatarPackage
from inference.avatar.session import AvatarSession
from inference.avatar.timed_frame import TimedFrame

__all__ = ["AvatarPackage", "AvatarSession", "TimedFrame", "find_named", "list_avatars"]
