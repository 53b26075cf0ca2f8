"""Every error that Viseme raises on purpose.

    VisemeError
    ├── CallerError                 the caller can correct the request
    │   ├── InvalidRequest          an option or a combination of options is invalid
    │   │   └── UnsupportedContentType  the media type of the body, or of the requested answer, is not supported
    │   ├── MediaError              the media file cannot be used
    │   │   ├── MediaNotFound       nothing at that path, bucket or key, or not a regular file
    │   │   ├── AccessDenied        reading or writing is not permitted; the file may not even exist
    │   │   ├── UnsupportedMedia    not media, damaged, or without video frames
    │   │   ├── MediaTruncated      the file ends too early
    │   │   ├── MediaTooLarge       over a limit on bytes, pixels, duration or frame rate
    │   │   ├── NoFaceFound         video frames, but no face to read
    │   │   └── NoAudio             no audio, or not a single sample; silence is audio
    │   ├── WeightsError            the requested model weights cannot be used
    │   │   ├── WeightsNotFound     no such set, no such file, or not fetched yet
    │   │   └── WrongWeights        the file does not contain the weights it should
    │   ├── AvatarError             the requested avatar cannot be used
    │   │   ├── AvatarNotFound      no avatar of that name, no package at that path
    │   │   ├── BadPackage          files of a package are missing, damaged, or contradict one another
    │   │   └── SessionNotFound     no session of that id, or it has ended
    │   ├── PreconditionFailed      the request is about another version of what it names
    │   └── JobRequestError         the request about a durable job cannot be followed
    │       ├── JobNotFound         no job of that id, or it is another client's
    │       └── IdempotencyConflict another request was submitted with the same key
    ├── DeviceUnavailable           this machine cannot run the model as requested
    ├── StorageError                storage is unreachable, or interrupted a transfer
    └── ServingError                the server cannot answer now
        ├── NotReady                models are loading, or the worker is restarting
        ├── Overloaded              the queue is full
        ├── StorageFull             there is no space for the input of another job
        ├── RateLimited             the client starts work more often than it may
        ├── DeadlineExceeded        the request took too long
        │   └── BodyTimeout         its body did not arrive in time, or too slowly
        ├── Canceled                the caller disconnected, or canceled the request
        ├── WorkerDied              the process that ran the request died
        ├── LeaseLost               another worker may run the job, or it was canceled
        ├── SpeechUnavailable       the program that speaks text is not installed
        ├── WebRtcUnavailable       the package for WebRTC is not installed
        └── OutOfMemory             the request needed more memory than there is

A message contains what was found and what was expected. Errors carry no HTTP status and no exit code:
`inference/error_responses.py` maps classes to statuses, and `container/commands/console.py` to exit codes.
"""


class VisemeError(Exception):
    """Root of the tree: catch it to catch every error that Viseme raises on purpose."""


class CallerError(VisemeError):
    """The caller can correct the request."""


class InvalidRequest(CallerError):
    """An option, or a combination of options, is invalid."""


class UnsupportedContentType(InvalidRequest):
    """The media type of the body, or of the requested answer, is not supported."""


class MediaError(CallerError):
    """The media file cannot be used."""


class MediaNotFound(MediaError):
    """There is nothing at that path, bucket or key, or it is not a regular file."""


class AccessDenied(MediaError):
    """Reading or writing is not permitted; the file may not even exist."""


class UnsupportedMedia(MediaError):
    """The bytes are not supported media, are damaged, or contain no video frames."""


class MediaTruncated(UnsupportedMedia):
    """The file ends too early."""


class MediaTooLarge(MediaError):
    """The media exceed a limit on bytes, pixels, duration or frame rate."""


class NoFaceFound(MediaError):
    """There are video frames, but no face in them that could be read."""


class NoAudio(MediaError):
    """The file contains no audio, or not a single sample. Silence is audio."""


class WeightsError(CallerError):
    """The requested model weights cannot be used."""


class WeightsNotFound(WeightsError):
    """No such weight set, no such file, or not fetched yet."""


class WrongWeights(WeightsError):
    """The file does not contain the weights it should."""


class AvatarError(CallerError):
    """The requested avatar cannot be used."""


class AvatarNotFound(AvatarError):
    """There is no avatar of that name, and no package at that path."""


class BadPackage(AvatarError):
    """Files of an avatar's package are missing, damaged, or contradict one another."""


class SessionNotFound(AvatarError):
    """There is no session of that id, or it has ended."""


class PreconditionFailed(CallerError):
    """The request is about another version of what it names."""


class JobRequestError(CallerError):
    """The request about a durable job cannot be followed."""


class JobNotFound(JobRequestError):
    """There is no job of that id, or it is another client's."""


class IdempotencyConflict(JobRequestError):
    """Another request was submitted with the same idempotency key."""


class DeviceUnavailable(VisemeError):
    """This machine cannot run the model on the requested device or at the requested precision."""


class StorageError(VisemeError):
    """Storage is unreachable, or interrupted a transfer again and again."""


class ServingError(VisemeError):
    """The server cannot answer now; the request itself may be fine."""


class NotReady(ServingError):
    """The models are still loading, or the worker is restarting."""


class Overloaded(ServingError):
    """The queue of waiting requests is full."""


class StorageFull(ServingError):
    """There is no space for the input of another job: their bytes are at the bound, or the disk is nearly full."""


class RateLimited(ServingError):
    """The client starts work more often than the deployment allows."""


class DeadlineExceeded(ServingError):
    """The request took longer than its deadline."""


class BodyTimeout(DeadlineExceeded):
    """The body of the request did not arrive in time, or arrived too slowly."""


class Canceled(ServingError):
    """The caller disconnected, or canceled the request."""


class WorkerDied(ServingError):
    """The process that ran the request died; the request was not retried."""


class LeaseLost(ServingError):
    """The lease of a job has expired or been taken, or the job was canceled; what ran it must publish nothing."""


class SpeechUnavailable(ServingError):
    """Text cannot be spoken here: the program that does it is not installed."""


class WebRtcUnavailable(ServingError):
    """Sessions over WebRTC are not possible here: the package for it is not installed."""


class OutOfMemory(ServingError):
    """The request needed more memory than there is."""
