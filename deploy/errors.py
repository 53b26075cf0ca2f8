"""Every error of deploying, and the exit code it ends a command with.

DeployError             1  AWS refused, failed, or took too long
├── CallFailed          1  one call to AWS was refused; `code` is AWS's own word for why
├── RolledBack          1  an update failed its checks; the endpoint runs as it did before
└── WrongRequest        2  what was asked cannot be done; asking otherwise can mend it
"""

from __future__ import annotations


class DeployError(Exception):
    """Root of the tree: its message says what happened and what to do."""

    exit_code = 1


class CallFailed(DeployError):
    """AWS refused a call."""

    def __init__(self, message: str, code: str, said: str = "") -> None:
        """code: AWS's name for the error; said: AWS's own words."""
        super().__init__(message)
        self.code = code
        self.said = said


class RolledBack(DeployError):
    """The update did not pass; SageMaker went back to what ran before."""


class WrongRequest(DeployError):
    """The caller can mend this by asking for something else."""

    exit_code = 2
