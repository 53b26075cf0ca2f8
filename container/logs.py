"""Structured logs: one JSON object per line, on stderr."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

# Attributes of every record; the others are the fields of its `extra`.
RECORD_NAMES = {*vars(logging.makeLogRecord({})), "message", "asctime"}


# `warnings.formatwarning` puts the file and the line before it, and the line's code after it.
WARNING_TEXT = re.compile(r"[^\n]*:\d+: (\w+: [^\n]*)")


class JobLogFormatter(logging.Formatter):
    """Formats a record for callers: one line that ends with the fields of its `extra`, their values in JSON.

    Of an exception it has the type alone, and of a warning the category and the text: tracebacks and paths are for the
    server's own log.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        record.message, record.asctime = record.getMessage(), self.formatTime(record)
        if record.name == "py.warnings" and (found := WARNING_TEXT.match(record.message)) is not None:
            record.message = found[1]
        fields = {name: value for name, value in vars(record).items() if name not in RECORD_NAMES}
        if record.exc_info is not None and record.exc_info[0] is not None:
            fields["exception"] = record.exc_info[0].__name__
        shown = [f"{name}={json.dumps(value, default=str)}" for name, value in fields.items()]
        return " ".join([self.formatMessage(record).replace("\n", " "), *shown])


@contextmanager
def recorded_logs(path: Path) -> Iterator[None]:
    """Write what this process logs inside of the block, on any thread, to a file, too."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(JobLogFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def set_up_logs(level: int = logging.INFO) -> None:
    """Write the records of every logger to stderr as JSON, including the fields of their `extra`."""
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("alembic.runtime.plugins", "botocore", "boto3", "urllib3", "httpx", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
