"""Requests as callers send them, validated, and the media types of their answers."""

from inference.media_types import ANSWER_TYPES, JSON, MP4, NDJSON, SRT, TEXT, TSV, VTT, WAV, AcceptHeader
from inference.requests.body import OPTIONS_HEADER, MediaSource, S3Object, UrlObject, shorten
from inference.requests.parse import (
    Request,
    headers_of,
    parse_generate_request,
    parse_job_request,
    parse_request,
    parse_viseme_request,
)
from inference.requests.read import ReadRequest
from inference.requests.sync import S3Folder, SyncRequest
from inference.requests.visemes import VisemeRequest

__all__ = [
    "ANSWER_TYPES",
    "JSON",
    "MP4",
    "NDJSON",
    "OPTIONS_HEADER",
    "SRT",
    "TEXT",
    "TSV",
    "VTT",
    "WAV",
    "AcceptHeader",
    "MediaSource",
    "ReadRequest",
    "Request",
    "S3Folder",
    "S3Object",
    "SyncRequest",
    "UrlObject",
    "VisemeRequest",
    "headers_of",
    "parse_generate_request",
    "parse_job_request",
    "parse_request",
    "parse_viseme_request",
    "shorten",
]
