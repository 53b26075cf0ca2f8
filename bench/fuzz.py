"""Read mutated media files in the sandboxed decoder: each must be read or refused, quickly and in little memory.

    python -m bench.fuzz [--files 1500] [--seed 0]

The files are small ones of every common format (see `fuzz_seeds`), with bytes, lengths and parts of them changed. Each
is read once for its frames and once for its audio. Prints the counts, the slowest file, the peak resident memory of the
decoders, and what was left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.fuzz_seeds import make_seeds
from inference.errors import VisemeError
from inference.media import SandboxedDecoder
from inference.media.sandbox.decoder import SandboxedMedia

MIB = 1024  # KiB, the unit of /proc
MAX_MUTATIONS = 8  # of one file
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Read = Callable[[SandboxedDecoder, bytes], None]


@dataclass
class FuzzReport:
    """What happened to the files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest: str = ""
    peak_mib: int = 0
    n_lost: int = 0  # decoders that crashed or were killed
    left_behind: list[str] = field(default_factory=list)


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    report = fuzz(args.files, args.seed)
    for outcome, number in report.outcomes.most_common():
        print(f"{outcome:20}{number:8}")
    print(f"slowest: {report.slowest_s:.2f} s ({report.slowest})")
    print(f"peak memory of a decoder: {report.peak_mib} MiB; decoders lost: {report.n_lost}")
    print(f"left behind: {', '.join(report.left_behind) or 'nothing'}")


class MeasuredDecoder(SandboxedDecoder):
    """A decoder that notes how much memory its processes take, and how many end in the middle of a file."""

    def __init__(self) -> None:
        super().__init__()
        self.peak_mib, self.n_lost = 0, 0

    def _release(self, media: SandboxedMedia) -> None:
        """Measure the process before it is replaced."""
        self.n_lost += media.state == "busy"
        if self.pid is not None:
            self.peak_mib = max(self.peak_mib, peak_mib(self.pid))
        super()._release(media)


def fuzz(n_files: int, seed: int) -> FuzzReport:
    """Read mutated files in decoders. Raises: any error that is not about the file."""
    report = FuzzReport()
    with MeasuredDecoder() as one, MeasuredDecoder() as other:  # while one reads, the other starts its next process
        for decoder in (one, other):
            decoder.warm_up()
        before = open_files()
        for name, contents in mutated_files(n_files, seed):
            measure(one, read_frames, name, contents, report)
            measure(other, read_audio, name, contents, report)
        report.peak_mib, report.n_lost = max(one.peak_mib, other.peak_mib), one.n_lost + other.n_lost
        report.left_behind = sorted(open_files() - before)
    return report


def mutated_files(n_files: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents; file `i` of a seed is always the same."""
    seeds = make_seeds()
    names = sorted(seeds)
    for number in range(n_files):
        rng = random.Random(f"{seed} {number}")  # noqa: S311 (not for secrets)
        name = names[number % len(names)]
        yield f"{name} of --seed {seed}, file {number}", mutate(seeds[name], rng)


def measure(decoder: SandboxedDecoder, read: Read, name: str, contents: bytes, report: FuzzReport) -> None:
    decoder.warm_up()
    start = time.monotonic()
    try:
        read(decoder, contents)
        outcome = "read"
    except VisemeError as err:
        outcome = type(err).__name__
    elapsed_s = time.monotonic() - start
    report.outcomes[outcome] += 1
    if elapsed_s > report.slowest_s:
        report.slowest_s, report.slowest = elapsed_s, f"{read.__name__}, {name}: {outcome}"


def read_frames(decoder: SandboxedDecoder, contents: bytes) -> None:
    with decoder.open(contents) as media:
        for _ in media.read_clips(25.0):
            pass


def read_audio(decoder: SandboxedDecoder, contents: bytes) -> None:
    decoder.spool_audio(contents).close()


def peak_mib(pid: int) -> int:
    """Return the peak resident memory of a process in MiB; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) // MIB
    return 0


def open_files() -> set[str]:
    """Return what this process has open, apart from what the decoder has for as long as it lives."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(descriptor.readlink())
            if not target.startswith(("/proc/", "socket:", "pipe:", "anon_inode:")):
                found.add(target)
    return found


def mutate(contents: bytes, rng: random.Random) -> bytes:
    """Change a file in one to MAX_MUTATIONS places, more often near its start, where headers are."""
    changed = bytearray(contents)
    for _ in range(rng.randint(1, MAX_MUTATIONS)):
        if not changed:
            break
        at = int(len(changed) * rng.random() ** rng.choice((1, 3)))
        change_at(changed, at, rng)
    return bytes(changed)


def change_at(contents: bytearray, at: int, rng: random.Random) -> None:
    length = rng.randint(1, 64)
    match rng.randrange(7):
        case 0:
            contents[at] ^= 1 << rng.randrange(8)
        case 1:
            contents[at] = rng.randrange(256)
        case 2:  # a number: a size, a count, an offset
            size = rng.choice((2, 4, 8))
            number = rng.choice(EXTREMES) & ((1 << 8 * size) - 1)
            contents[at : at + size] = number.to_bytes(size, rng.choice(("big", "little")))
        case 3:
            del contents[at : at + length]
        case 4:
            contents[at:at] = contents[at : at + length] * rng.randint(1, 4)
        case 5:
            source = rng.randrange(len(contents))
            contents[at : at + length] = contents[source : source + length]
        case _:
            if rng.random() < 0.25:
                del contents[at:]
            else:
                contents[at : at + length] = rng.randbytes(length)


if __name__ == "__main__":
    main()
