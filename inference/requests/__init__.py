"""What callers may ask over the wire, validated; the answers' forms."""

from inference.requests.answers import ANSWERS, JSON, MP4, NDJSON, SRT, TEXT, VTT, choose_answer
from inference.requests.body import OPTIONS_HEADER, S3Object, shorten
from inference.requests.parse import Request, parse_generation, parse_request
from inference.requests.read import ReadRequest
from inference.requests.sync import S3Folder, SyncRequest

__all__ = [
    "ANSWERS",
    "JSON",
    "MP4",
    "NDJSON",
    "OPTIONS_HEADER",
    "SRT",
    "TEXT",
    "VTT",
    "ReadRequest",
    "Request",
    "S3Folder",
    "S3Object",
    "SyncRequest",
    "choose_answer",
    "parse_generation",
    "parse_request",
    "shorten",
]
