"""Makes the model archive: `python -m deploy.package -o model.tar.gz`.

model.safetensors       the weights (--weights), where every image of ours looks first
wav2lip*.pth            lip-sync checkpoints (--checkpoint), where there are any
data/weights/mediapipe/ the face models, so that a start needs no network
code/viseme_entry.py    what a hosting toolkit runs (SAGEMAKER_PROGRAM)
code/inference/         the engines, and the starter of lip sync
code/requirements.txt   what the stock image lacks
"""

from __future__ import annotations

import argparse
import gzip
import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from deploy.errors import DeployError, WrongRequest
from deploy.storage import check_file
from deploy.waiting import say

ROOT = Path(__file__).parents[1]
ENTRY = "viseme_entry.py"
STARTER = ROOT / "inference" / "weights" / "starter" / "lipcoordnet" / "model.safetensors"
SYNC_STARTER = STARTER.parents[1] / "wav2lip" / "model.safetensors"  # what moves lips where no checkpoint is brought
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")
CHECKPOINTS = ("wav2lip.pth", "wav2lip_gan.pth")
FACE_MODELS = PurePosixPath("data/weights/mediapipe")  # as VISEME_DATA_DIR=.../data has them found
# Of requirements.txt, what the stock image lacks. It has torch, numpy, OpenCV, safetensors, boto3 and
# huggingface-hub in versions of its own: those stay what they are.
LACKING = ("av", "openvino", "pydantic", "tenacity", "pysubs2")
FETCH_TIMEOUT_S = 900
WHEN = 315532800  # 1980-01-01, for every file: archives of the same files are the same


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 2 the caller's mistake, 1 anything else."""
    parser = argparse.ArgumentParser(prog="python -m deploy.package", description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="such as model.tar.gz")
    parser.add_argument("--weights", type=Path, default=STARTER, metavar="FILE", help="weights of your own")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="for lip sync, yours to bring: wav2lip.pth, wav2lip_gan.pth; may repeat",
    )
    asked = parser.parse_args(arguments)
    try:
        build_archive(asked.output, asked.weights, asked.checkpoint)
    except DeployError as err:
        say(f"deploy.package: {err}")
        return err.exit_code
    sys.stdout.write(f"{asked.output}\n")
    return 0


def build_archive(output: Path, weights: Path = STARTER, checkpoints: Sequence[Path] = ()) -> None:
    """Write the archive; the same files make the same bytes.

    Raises: WrongRequest where the weights, a checkpoint or the folder are not there, DeployError where the face models
    cannot be had.
    """
    if weights.suffix not in WEIGHT_SUFFIXES:
        raise WrongRequest(f"{weights}: expected {', '.join(WEIGHT_SUFFIXES)}")
    check_file(weights)
    for one in checkpoints:
        if one.name not in CHECKPOINTS:
            raise WrongRequest(f"{one}: expected it to be called {' or '.join(CHECKPOINTS)}, as it is looked for")
        check_file(one)
    if not output.parent.is_dir():
        raise WrongRequest(f"{output.parent}: no such folder")
    files = dict(list_code()) | dict(list_face_models())
    files[PurePosixPath("model").with_suffix(weights.suffix)] = weights.read_bytes()
    files |= {PurePosixPath(one.name): one.read_bytes() for one in checkpoints}
    files[PurePosixPath("code/requirements.txt")] = make_requirements().encode()
    write_archive(output, files)


def write_archive(output: Path, files: dict[PurePosixPath, bytes]) -> None:
    """Sorted, with one time, owner and mode for all, and none of them in gzip's own header."""
    with (
        output.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=WHEN) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in sorted(files, key=str):
            entry = tarfile.TarInfo(str(name))
            entry.size, entry.mtime, entry.mode = len(files[name]), WHEN, 0o644
            archive.addfile(entry, io.BytesIO(files[name]))


def list_code() -> Iterator[tuple[PurePosixPath, bytes]]:
    """The engines with lip sync's starter, and the entry; without what Python leaves behind.

    Nor with other weights: those of reading lie at the top, and no toolkit serves live avatars.
    """
    code = PurePosixPath("code")
    for path in sorted((ROOT / "inference").rglob("*")):
        if path.is_file() and (path == SYNC_STARTER or path.suffix not in (*WEIGHT_SUFFIXES, ".pyc")):
            yield code / path.relative_to(ROOT).as_posix(), path.read_bytes()
    yield code / ENTRY, (Path(__file__).parent / "artifact" / ENTRY).read_bytes()


def list_face_models() -> Iterator[tuple[PurePosixPath, bytes]]:
    """MediaPipe's files, checked or fetched by the terminal's own command; deploying knows no engine."""
    command = [sys.executable, "-m", "container.cli", "weights", "fetch", "mediapipe"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False, cwd=ROOT)
    if run.returncode != 0:
        raise DeployError(f"the face models cannot be had: {run.stderr.strip() or 'no reason was given'}")
    for line in run.stdout.splitlines():
        path = Path(line)
        yield FACE_MODELS / path.name, path.read_bytes()


def make_requirements() -> str:
    """The pinned lines of requirements.txt that the stock image needs."""
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE))
    return "".join(f"{name}=={pinned[name]}\n" for name in LACKING)


if __name__ == "__main__":
    sys.exit(main())
