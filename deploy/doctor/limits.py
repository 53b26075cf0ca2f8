"""What SageMaker expects of a container, in seconds and bytes, and how hard the checks press."""

from __future__ import annotations

from dataclasses import dataclass

# SageMaker's limit for a request in real time is 25 MB.
REALTIME_BYTES = 25_000_000
TOO_MANY_BYTES = (25 << 20) + (1 << 16)


@dataclass(frozen=True)
class ContractLimits:
    """SageMaker's own numbers, which tests make smaller.

    deadline_s: for an answer in real time; ping_s: for one to /ping; drain_s: from SIGTERM to SIGKILL; idle_s: as long
    as load balancers keep an idle connection; startup_s: until /ping is 200; settle_s: for a request to be under way.
    """

    deadline_s: float = 60.0
    ping_s: float = 2.0
    drain_s: float = 30.0
    idle_s: float = 60.0
    startup_s: float = 300.0
    settle_s: float = 2.0
    grace_s: float = 5.0  # for an answer that is sent at the deadline to arrive
    n_at_once: int = 40  # requests; more than any queue that answers within the deadline
