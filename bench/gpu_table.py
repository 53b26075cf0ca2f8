"""The results of `bench.gpu_check`: one row per network, precision, way to run it, and batch size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from bench.gpu_measures import MIB, Occupation, Peak, Transfer

TOLERANCE = {"f32": 1e-3, "f16": 2e-2, "bf16": 1e-1}  # difference of outputs / range of the CPU's outputs
# bfloat16 has 8 significant bits, so a character that is nearly a tie may change. `auto` never means it on a GPU.
EXACT_TEXT = ("f32", "f16")  # precisions whose text must equal the CPU's
SHOWN_BATCHES = 3  # in the Markdown table: the smallest, the middle one, the largest
HEADER = (
    "| network | precision | run as | same as the CPU | largest difference | ms of one, in batches of {sizes} | "
    "MiB allocated, reserved | to, from the device: ms (MB) | device busy | gaps, ms |"
)


@dataclass(frozen=True)
class Row:
    """One network in one precision and batch size, run in one way.

    run_as: eager, or CUDA graph. same: share of texts or pixels that equal the CPU's in float32, None if none are
    counted. difference: the largest one of an output from the CPU's; output_range: of the CPU's outputs.
    limit: of difference / output_range. ms: of one input, by the wall clock, with its copies. note: what was not
    measured, and why. fault: why it did not run.
    """

    network: str
    unit: str
    precision: str
    run_as: str
    n_batch: int
    same: float | None = None
    same_is: str = ""
    difference: float = float("nan")
    output_range: float = 1.0
    limit: float = 0.0
    ms: float = float("nan")
    peak: Peak | None = None
    upload: Transfer | None = None
    download: Transfer | None = None
    occupation: Occupation | None = None
    note: str = ""
    fault: str = ""

    @property
    def passes(self) -> bool:
        must_be_same = self.same_is == "texts" and self.precision in EXACT_TEXT
        if self.fault or (must_be_same and self.same != 1):
            return False
        return self.difference / self.output_range <= self.limit  # false for NaN

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, which has no NaN."""
        found = {key: None if value != value else value for key, value in asdict(self).items()}  # noqa: PLR0124
        return found | {"passes": self.passes}


def describe(row: Row) -> str:
    """Return a row as one line of the terminal."""
    start = f"{row.network:22}{row.precision:6}{row.run_as:12}{row.n_batch:4}"
    if row.fault:
        return f"{start}  FAILED: {row.fault}"
    same = "" if row.same is None else f"{100 * row.same:.3g} % of {row.same_is} "
    relative = row.difference / row.output_range
    result = "ok" if row.passes else f"FAILED: at most {row.limit:g}"
    return f"{start}  {same:18}{relative:10.5f}{row.ms:10.2f} ms a {row.unit:8}{result}"


def to_markdown(rows: Sequence[Row], device: str) -> str:
    """Return the table for docs/benchmarks.md: one line per network, precision and way to run it."""
    sizes = shown_sizes({row.n_batch for row in rows})
    header = HEADER.format(sizes=", ".join(map(str, sizes)))
    notes = sorted({row.note for row in rows if row.note})
    lines = [f"`python -m bench.gpu_check` on {device}. {' '.join(notes)}".rstrip(), "", header]
    lines.append("|" + "---|" * (header.count("|") - 1))
    grouped = groupby(rows, key=lambda row: (row.network, row.precision, row.run_as))
    lines += [to_line(list(group), sizes) for _, group in grouped]
    return "\n".join(lines) + "\n"


def shown_sizes(sizes: set[int]) -> list[int]:
    """Return the smallest, the middle and the largest batch size."""
    ordered = sorted(sizes)
    return ordered if len(ordered) <= SHOWN_BATCHES else [ordered[0], ordered[len(ordered) // 2], ordered[-1]]


def to_line(rows: Sequence[Row], sizes: Sequence[int]) -> str:
    """Return one line: the worst agreement of all batch sizes, times by size, the rest of the largest batch."""
    first, last = rows[0], rows[-1]
    cells = [first.network, first.precision, first.run_as]
    faults = [f"batch {row.n_batch}: {row.fault}" for row in rows if row.fault]
    ran = [row for row in rows if not row.fault]
    same = min((row.same for row in ran if row.same is not None), default=None)
    cells.append("; ".join(faults) or ("" if same is None else f"{100 * same:.3g} % of {first.same_is}"))
    cells.append(f"{max((row.difference / row.output_range for row in ran), default=float('nan')):.2g}")
    ms = {row.n_batch: row.ms for row in ran}
    cells.append(", ".join(f"{ms[size]:.3g}" if size in ms else "-" for size in sizes))
    cells.append(f"{last.peak.allocated_mib:.0f}, {last.peak.reserved_mib:.0f}" if last.peak else "")
    cells.append(", ".join(f"{one.ms:.2g} ({one.n_bytes / MIB:.2g})" for one in (last.upload, last.download) if one))
    cells.append(f"{100 * first.occupation.busy:.0f} %" if first.occupation else "")
    cells.append(f"{first.occupation.gap_ms:.2g}" if first.occupation else "")
    return "| " + " | ".join(cells) + " |"


def count_failed(rows: Iterable[Row]) -> int:
    return sum(not row.passes for row in rows)
