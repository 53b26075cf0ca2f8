"""Every error Viseme raises on purpose.

    VisemeError
    ├── CallerError                 what was asked cannot be done; asking otherwise can mend it
    │   ├── InvalidRequest          an option or a combination of options is wrong
    │   │   └── UnsupportedContentType  a body, or an answer, in a form we do not speak
    │   ├── MediaError              the file that was given
    │   │   ├── MediaNotFound       nothing at that path, bucket or key, or not a plain file
    │   │   ├── AccessDenied        it may be there, but we may not read or write it
    │   │   ├── UnsupportedMedia    not media, damaged, or holds no pictures
    │   │   ├── MediaTruncated      the file stops before its own end
    │   │   ├── MediaTooLarge       over a limit on bytes, pixels, duration or frame rate
    │   │   ├── NoFaceFound         pictures, but no face to read in them
    │   │   └── NoAudio             no sound in it, or not a sample of one; silence is sound
    │   ├── WeightsError            the model weights that were asked for
    │   │   ├── WeightsNotFound     no such set, no such file, or not fetched yet
    │   │   └── WrongWeights        a file that is not what it was given as
    │   └── AvatarError             the avatar that was asked for
    │       ├── AvatarNotFound      no avatar of that name, no package at that path
    │       └── BadPackage          files of a package are missing, damaged, or contradict one another
    ├── DeviceUnavailable           this machine cannot run the model as asked
    ├── StorageError                storage failed us: out of reach, or cut a transfer off
    └── ServingError                the server cannot answer now
        ├── NotReady                models are loading, or the worker is being restarted
        ├── Overloaded              the queue is full
        ├── DeadlineExceeded        it took longer than the request was given
        ├── Canceled                the caller went away, or asked for it
        ├── WorkerDied              the process that ran the request is gone
        └── OutOfMemory             the request needed more memory than there is

A message says what was found and what was expected. Errors carry no HTTP status and no exit
code: the serving edge (`container`) maps classes to those.
"""


class VisemeError(Exception):
    """Root of the tree: catch it to catch everything Viseme raises on purpose."""


class CallerError(VisemeError):
    """The caller can mend this by asking for something else."""


class InvalidRequest(CallerError):
    """An option, or a combination of options, is wrong."""


class UnsupportedContentType(InvalidRequest):
    """The body is, or the answer is wanted, in a form we do not speak."""


class MediaError(CallerError):
    """The media file that was given cannot be used."""


class MediaNotFound(MediaError):
    """Nothing is at that path, bucket or key, or it is not a plain file."""


class AccessDenied(MediaError):
    """It may be there, but we may not read or write it."""


class UnsupportedMedia(MediaError):
    """The bytes are not media that we read, are damaged, or hold no pictures."""


class MediaTruncated(UnsupportedMedia):
    """The file stops before its own end."""


class MediaTooLarge(MediaError):
    """The media exceed a limit on bytes, pixels, duration or frame rate."""


class NoFaceFound(MediaError):
    """There are pictures, but no face that could be read in them."""


class NoAudio(MediaError):
    """There is no sound in the file, or not a sample of it. Silence is sound."""


class WeightsError(CallerError):
    """The model weights that were asked for cannot be used."""


class WeightsNotFound(WeightsError):
    """No such weight set, no such file, or not fetched yet."""


class WrongWeights(WeightsError):
    """A file is not the weights it was given as."""


class AvatarError(CallerError):
    """The avatar that was asked for cannot be used."""


class AvatarNotFound(AvatarError):
    """There is no avatar of that name, and no package at that path."""


class BadPackage(AvatarError):
    """Files of an avatar's package are missing, damaged, or contradict one another."""


class DeviceUnavailable(VisemeError):
    """This machine cannot run the model on the device or at the precision asked for."""


class StorageError(VisemeError):
    """Storage failed us: it is out of reach, or it cut a transfer off again and again."""


class ServingError(VisemeError):
    """The server cannot answer now; the request itself may be fine."""


class NotReady(ServingError):
    """The models are still loading, or the worker is being restarted."""


class Overloaded(ServingError):
    """As many requests wait as may."""


class DeadlineExceeded(ServingError):
    """The request took longer than it was given."""


class Canceled(ServingError):
    """The caller went away, or asked for the request to end."""


class WorkerDied(ServingError):
    """The process that ran the request is gone; it was not run again."""


class OutOfMemory(ServingError):
    """The request needed more memory than there is."""
