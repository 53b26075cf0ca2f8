"""Errors of the deployment commands and the exit codes they end a command with.

DeployError             1  AWS refused, failed, or took too long
├── CallFailed          1  AWS refused one call; `code` is AWS's error code
├── RequestFailed       1  the endpoint is in service, but answered a request with an error
├── RolledBack          1  an update failed its checks; the endpoint runs as it did before
└── WrongRequest        2  the arguments cannot be carried out; the caller can correct them
"""

from __future__ import annotations


class DeployError(Exception):
    """Root of the tree: its message says what happened and what to do."""

    exit_code = 1


class CallFailed(DeployError):
    """AWS refused a call."""

    def __init__(self, message: str, code: str, aws_message: str = "", status: int | None = None) -> None:
        """code: AWS's error code; aws_message: AWS's own error message; status: the container's, of a ModelError."""
        super().__init__(message)
        self.code = code
        self.aws_message = aws_message
        self.status = status


class RequestFailed(DeployError):
    """The endpoint answered a request with an error, or with something other than what was requested."""


class RolledBack(DeployError):
    """The update failed its checks, and SageMaker went back to the previous version."""


class WrongRequest(DeployError):
    """The caller can correct this by changing the arguments."""

    exit_code = 2
