"""Pack the model archive.

model.safetensors       lip-reading weights (--weights), used by either image instead of the bundled ones
wav2lip*.pth            lip-sync checkpoints (--checkpoint), if any
data/weights/mediapipe/ face models, so that a start needs no network
code/viseme_entry.py    entry file of the hosting toolkit (SAGEMAKER_PROGRAM)
code/inference/         the engines, with the bundled lip-sync weights
code/requirements.txt   packages that the stock image lacks
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
from deploy.waiting import write_stderr

ROOT = Path(__file__).parents[1]
ENTRY_FILE = "viseme_entry.py"
READING_WEIGHTS = ROOT / "inference" / "weights" / "starter" / "lipcoordnet" / "model.safetensors"
SYNC_WEIGHTS = READING_WEIGHTS.parents[1] / "wav2lip" / "model.safetensors"  # used if no checkpoint is supplied
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")
CHECKPOINT_NAMES = ("wav2lip.pth", "wav2lip_gan.pth")
FACE_MODELS = PurePosixPath("data/weights/mediapipe")  # found there with VISEME_DATA_DIR=.../data
# The lines of requirements.txt that the stock image lacks. It has its own versions of torch, numpy, OpenCV,
# safetensors, boto3 and huggingface-hub, which must stay as they are.
EXTRA_PACKAGES = ("av", "openvino", "pydantic", "tenacity", "pysubs2")
FETCH_TIMEOUT_S = 900
FIXED_MTIME = 315532800  # 1980-01-01, for every file: the same files give the same archive


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 2 wrong arguments, 1 any other failure."""
    args = make_parser().parse_args(arguments)
    try:
        build_archive(args.output, args.weights, args.checkpoint)
    except DeployError as err:
        write_stderr(f"deploy.package: {err}")
        return err.exit_code
    sys.stdout.write(f"{args.output}\n")
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.package", description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="such as model.tar.gz")
    parser.add_argument(
        "--weights", type=Path, default=READING_WEIGHTS, metavar="FILE", help="lip-reading weights (default: bundled)"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="lip-sync checkpoint that you supply: wav2lip.pth or wav2lip_gan.pth; repeatable",
    )
    return parser


def build_archive(output: Path, weights: Path = READING_WEIGHTS, checkpoints: Sequence[Path] = ()) -> None:
    """Write the archive; the same files give the same bytes.

    Raises: WrongRequest if the weights, a checkpoint or the output folder do not exist; DeployError if the face models
    cannot be fetched.
    """
    if weights.suffix not in WEIGHT_SUFFIXES:
        raise WrongRequest(f"{weights}: expected {', '.join(WEIGHT_SUFFIXES)}")
    check_file(weights)
    for checkpoint in checkpoints:
        if checkpoint.name not in CHECKPOINT_NAMES:
            raise WrongRequest(f"{checkpoint}: expected a file named {' or '.join(CHECKPOINT_NAMES)}")
        check_file(checkpoint)
    if not output.parent.is_dir():
        raise WrongRequest(f"{output.parent}: no such folder")
    files = dict(list_code()) | dict(list_face_models())
    files[PurePosixPath("model").with_suffix(weights.suffix)] = weights.read_bytes()
    files |= {PurePosixPath(path.name): path.read_bytes() for path in checkpoints}
    files[PurePosixPath("code/requirements.txt")] = make_requirements().encode()
    write_archive(output, files)


def write_archive(output: Path, files: dict[PurePosixPath, bytes]) -> None:
    """Write the files in sorted order, all with the same time, owner and mode; gzip's header gets the same time."""
    with (
        output.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=FIXED_MTIME) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in sorted(files, key=str):
            entry = tarfile.TarInfo(str(name))
            entry.size, entry.mtime, entry.mode = len(files[name]), FIXED_MTIME, 0o644
            archive.addfile(entry, io.BytesIO(files[name]))


def list_code() -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the engines, the bundled lip-sync weights and the entry file, without Python's compiled files.

    Other weights are left out: the lip-reading weights are at the archive's top, and no toolkit serves live avatars.
    """
    code = PurePosixPath("code")
    for path in sorted((ROOT / "inference").rglob("*")):
        if path.is_file() and (path == SYNC_WEIGHTS or path.suffix not in (*WEIGHT_SUFFIXES, ".pyc")):
            yield code / path.relative_to(ROOT).as_posix(), path.read_bytes()
    yield code / ENTRY_FILE, (Path(__file__).parent / "artifact" / ENTRY_FILE).read_bytes()


def list_face_models() -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield MediaPipe's files, verified or fetched by `viseme weights`: this package does not import the engines."""
    command = [sys.executable, "-m", "container.cli", "weights", "fetch", "mediapipe"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False, cwd=ROOT)
    if run.returncode != 0:
        raise DeployError(f"the face models cannot be fetched: {run.stderr.strip() or 'no reason given'}")
    for line in run.stdout.splitlines():
        path = Path(line)
        yield FACE_MODELS / path.name, path.read_bytes()


def make_requirements() -> str:
    """Return the pinned lines of requirements.txt that the stock image needs."""
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE))
    return "".join(f"{name}=={pinned[name]}\n" for name in EXTRA_PACKAGES)


if __name__ == "__main__":
    sys.exit(main())
