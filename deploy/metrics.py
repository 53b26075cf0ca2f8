"""The CloudWatch metrics that AWS publishes, by its documentation: an alarm on any other one never rings.

`cloudwatch_metrics.csv` has each with its dimensions, statistics and kinds of endpoints, and the page that lists it.
AWS accepts an alarm on any combination without a word.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("cloudwatch_metrics.csv")
PERCENTILE = re.compile(r"p\d+(\.\d+)?")


@dataclass(frozen=True)
class WatchedMetric:
    """A metric as an alarm or a scaling policy watches it. mode: of the endpoint, None for other services."""

    namespace: str
    metric: str
    dimensions: frozenset[str]
    statistic: str
    mode: str | None


def documented_metrics() -> Iterator[dict[str, str]]:
    with TABLE.open(newline="") as file:
        yield from csv.DictReader(file)


def is_documented(namespace: str, metric: str) -> bool:
    """Return whether the table has this metric; it does not have all of AWS's."""
    return any((row["namespace"], row["metric"]) == (namespace, metric) for row in documented_metrics())


def find_fault(watched: WatchedMetric) -> str | None:
    """Return what AWS's documentation says against a watched metric; None if it is published like that."""
    found = (watched.namespace, watched.metric)
    row = next((row for row in documented_metrics() if (row["namespace"], row["metric"]) == found), None)
    if row is None:
        return "no such metric"
    if set(row["dimensions"].split()) != watched.dimensions:
        return f"published with {row['dimensions']}, not {' '.join(sorted(watched.dimensions))}"
    allowed = row["statistics"].split()
    statistic = "percentiles" if PERCENTILE.fullmatch(watched.statistic) else watched.statistic
    if statistic not in allowed:
        return f"its statistics are {row['statistics']}, not {watched.statistic}"
    if watched.mode is not None and row["endpoints"] and watched.mode not in row["endpoints"].split():
        return f"published for {row['endpoints']} endpoints, not {watched.mode}"
    return None
