"""Pack the model archive.

model.*                 lip-reading weights (--weights), if any; either image uses them instead of the bundled ones
wav2lip*.pth            lip-sync checkpoints (--checkpoint), if any
shape_predictor_68*.dat dlib's predictor (--landmarks), if any
data/weights/mediapipe/ face models, so that a start needs no network
code/viseme_entry.py    entry file of the hosting toolkit (SAGEMAKER_PROGRAM)
code/inference/         the engines, with the bundled weights
code/requirements.txt   packages that the stock image lacks; or, for a container without a network:
code/lib/               these packages (--with-packages)
"""

from __future__ import annotations

import argparse
import gzip
import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from deploy.errors import DeployError, WrongRequest
from deploy.models import WEIGHT_SUFFIXES, ModelSelection, add_selection_arguments
from deploy.waiting import write_stderr
from deploy.wheels import STOCK_INTERPRETER, Interpreter, list_packages

ROOT = Path(__file__).parents[1]
ENTRY_FILE = "viseme_entry.py"
STARTER_FOLDER = ROOT / "inference" / "weights" / "starter"
BUNDLED_WEIGHTS = tuple(STARTER_FOLDER / name / "model.safetensors" for name in ("lipcoordnet", "visemes", "wav2lip"))
FACE_MODELS = PurePosixPath("data/weights/mediapipe")  # searched before the cache
# The lines of requirements.txt that the stock image lacks. It has its own versions of torch, numpy, OpenCV,
# safetensors, boto3 and huggingface-hub, which must stay as they are.
EXTRA_PACKAGES = ("av", "openvino", "pydantic", "tenacity", "pysubs2", "dlib-bin")
FETCH_TIMEOUT_S = 900
LIBRARY = PurePosixPath("code/lib")
LIBRARY_PATH = f"/opt/ml/model/{LIBRARY}"  # for PYTHONPATH: Python searches it before the image's own packages
FIXED_MTIME = 315532800  # 1980-01-01, for every file: the same files give the same archive


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 2 wrong arguments, 1 any other failure."""
    args = make_parser().parse_args(arguments)
    try:
        models = fetch_sets(ModelSelection.from_arguments(args))
        build_archive(args.output, models.files, with_packages=args.with_packages)
    except DeployError as err:
        write_stderr(f"deploy.package: {err}")
        return err.exit_code
    for notice in models.notices(models.environment):
        write_stderr(f"warning: {notice}")
    for name, value in models.environment.items():
        write_stderr(f"the endpoint needs --env {name}={value}")
    if args.with_packages:
        write_stderr(f"the endpoint needs --env PYTHONPATH={LIBRARY_PATH}")
    sys.stdout.write(f"{args.output}\n")
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.package", description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="such as model.tar.gz")
    parser.add_argument(
        "--with-packages",
        action="store_true",
        help="pack the packages themselves, instead of requirements.txt, so that a start needs no package index",
    )
    add_selection_arguments(parser, "hub and dlib are fetched now, and packed")
    return parser


def fetch_sets(models: ModelSelection) -> ModelSelection:
    """Return the models with the sets hub and dlib replaced by their files, so that a start needs no network.

    Raises: DeployError if they cannot be fetched.
    """
    wants_dlib = models.landmarks == "dlib" or (models.weights == "hub" and models.landmarks is None)
    weights = None if models.weights == "starter" else models.weights
    return replace(
        models,
        weights=str(fetch("hub")[0]) if weights == "hub" else weights,
        landmarks=str(fetch("dlib")[0]) if wants_dlib else models.landmarks,
    )


def build_archive(
    output: Path,
    models: Mapping[PurePosixPath, Path] | None = None,
    *,
    with_code: bool = True,
    with_packages: bool = False,
    interpreter: Interpreter = STOCK_INTERPRETER,
) -> None:
    """Write the archive; the same files give the same bytes.

    models: the files of `ModelSelection.files`, by their paths in the archive. with_code: whether the engines and face
    models are packed, which Viseme's own image has. with_packages: whether the packages of requirements.txt are packed
    instead of that file, for this interpreter.
    Raises: WrongRequest if the output folder does not exist; DeployError if face models or packages cannot be fetched.
    """
    if not output.parent.is_dir():
        raise WrongRequest(f"{output.parent}: no such folder")
    files = {name: path.read_bytes() for name, path in (models or {}).items()}
    if with_code:
        files |= dict(list_code()) | dict(list_face_models())
        files |= dict(list_requirements(interpreter if with_packages else None))
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
    """Yield the engines, the bundled weights and the entry file, without Python's compiled files.

    The weights of live avatars are left out: no toolkit serves these.
    """
    code = PurePosixPath("code")
    for path in sorted((ROOT / "inference").rglob("*")):
        if path.is_file() and (path in BUNDLED_WEIGHTS or path.suffix not in (*WEIGHT_SUFFIXES, ".pyc")):
            yield code / path.relative_to(ROOT).as_posix(), path.read_bytes()
    yield code / ENTRY_FILE, (Path(__file__).parent / "artifact" / ENTRY_FILE).read_bytes()


def list_requirements(interpreter: Interpreter | None) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield requirements.txt; or the packages themselves, for an interpreter.

    Not both: the stock image installs whatever the file names, and ends if it has no network for that.
    """
    if interpreter is None:
        yield PurePosixPath("code/requirements.txt"), make_requirements().encode()
        return
    for path, contents in list_packages(make_requirements(), interpreter):
        yield LIBRARY / path, contents


def list_face_models() -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield MediaPipe's files."""
    for path in fetch("mediapipe"):
        yield FACE_MODELS / path.name, path.read_bytes()


def fetch(name: str) -> list[Path]:
    """Return the files of a weight set, verified or fetched by `viseme weights`: this package imports no engines."""
    command = [sys.executable, "-m", "container.cli", "weights", "fetch", name]
    run = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False, cwd=ROOT)
    if run.returncode != 0:
        raise DeployError(f"the weights {name!r} cannot be fetched: {run.stderr.strip() or 'no reason given'}")
    return [Path(line) for line in run.stdout.splitlines()]


def make_requirements() -> str:
    """Return the pinned lines of requirements.txt that the stock image needs."""
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE))
    return "".join(f"{name}=={pinned[name]}\n" for name in EXTRA_PACKAGES)


if __name__ == "__main__":
    sys.exit(main())
