"""What a check found: one line each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warn"
    FAILURE = "FAIL"
    NOT_CHECKED = "not checked"


OUTCOME_WIDTH = max(map(len, Outcome))


@dataclass(frozen=True)
class Finding:
    """check: its name; found: what was measured; fix: how to mend it, empty if there is nothing to mend."""

    check: str
    outcome: Outcome
    found: str
    fix: str = ""

    @property
    def has_failed(self) -> bool:
        return self.outcome is Outcome.FAILURE

    def line(self) -> str:
        text = f"{self.outcome:{OUTCOME_WIDTH}}  {self.check}: {self.found}" + (f"; {self.fix}" if self.fix else "")
        return "".join(one if one.isprintable() else " " for one in text)  # a container can send anything


def ok(check: str, found: str) -> Finding:
    return Finding(check, Outcome.OK, found)


def warning(check: str, found: str, fix: str = "") -> Finding:
    return Finding(check, Outcome.WARNING, found, fix)


def failure(check: str, found: str, fix: str) -> Finding:
    return Finding(check, Outcome.FAILURE, found, fix)


def not_checked(check: str, why: str) -> Finding:
    return Finding(check, Outcome.NOT_CHECKED, why)


def as_json(target: str, findings: Sequence[Finding]) -> str:
    """Return one JSON object. target: what was checked."""
    checks = [asdict(one) for one in findings]
    return json.dumps(
        {"target": target, "failed": any(one.has_failed for one in findings), "findings": checks}, indent=2
    )
