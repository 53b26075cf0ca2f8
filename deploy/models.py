"""The models of an endpoint: files are packed into its archive, the others named, and fetched at its start."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deploy.errors import WrongRequest
from deploy.storage import check_file

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")
CHECKPOINT_NAMES = ("wav2lip.pth", "wav2lip_gan.pth")  # by these the engines find them in an archive
READING_SETS = ("starter", "hub")  # those of `viseme weights list` that an endpoint can get by itself
SYNC_SETS = ("starter",)
SCHEMES = ("s3://", "hf://")
PUBLISHED_REPOSITORY = "SilentSpeak/LipCoordNet"  # the set "hub"
LANDMARKERS = ("mediapipe", "dlib")
PREDICTOR_SUFFIX = ".dat"
PACKED_PREDICTOR = PurePosixPath("shape_predictor_68_face_landmarks.dat")

WEIGHTS_VARIABLE = "VISEME_WEIGHTS"
CHECKPOINTS_VARIABLE = "VISEME_CHECKPOINTS"
LANDMARKS_VARIABLE = "VISEME_LANDMARKS"
HUB_VARIABLE = "HF_MODEL_ID"
DLIB_NOTICE = (
    "dlib's 68-point predictor was trained on the iBUG 300-W data, whose licence excludes commercial use; "
    "ask Imperial College London before you use it in a product"
)
WAV2LIP_NOTICE = (
    "Wav2Lip's published weights are for research and personal use only: their authors and the BBC's LRS2 data, "
    "which they were trained on, exclude commercial use"
)


@dataclass(frozen=True)
class ModelSelection:
    """The models that the caller chose; by default the bundled ones.

    weights: of lip reading: a file, the name of a set, s3://bucket/key or hf://owner/name. checkpoints: of lip sync,
    the same. landmarks: a landmarker's name, or a file: dlib's predictor; None for those that the weights want.
    """

    weights: str | None = None
    checkpoints: tuple[str, ...] = ()
    landmarks: str | None = None

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> ModelSelection:
        """Take the models from the command line. Raises: WrongRequest if there is no such file, name or address."""
        if args.weights is not None:
            check_model(args.weights, "--weights", READING_SETS)
        for checkpoint in args.checkpoint:
            check_checkpoint(checkpoint)
        names = [Path(one).stem for one in args.checkpoint]
        if len(set(names)) < len(names):
            raise WrongRequest(f"--checkpoint: two of {', '.join(args.checkpoint)} have the same name")
        if args.landmarks is not None and args.landmarks not in LANDMARKERS:
            check_predictor(args.landmarks)
        return cls(args.weights, tuple(args.checkpoint), args.landmarks)

    @property
    def files(self) -> dict[PurePosixPath, Path]:
        """The files to pack, by their paths in the archive, where the engines look for them."""
        found: dict[PurePosixPath, Path] = {}
        if self.weights is not None and is_file(self.weights, WEIGHT_SUFFIXES):
            path = Path(self.weights)
            found[PurePosixPath("model").with_suffix(path.suffix)] = path
        found |= {PurePosixPath(path.name): path for path in map(Path, self._checkpoint_files())}
        if self._has_predictor() and self.landmarks is not None:
            found[PACKED_PREDICTOR] = Path(self.landmarks)
        return found

    @property
    def environment(self) -> dict[str, str]:
        """The container's variables that name what is not packed."""
        found = {}
        if self.weights is not None and not is_file(self.weights, WEIGHT_SUFFIXES):
            found[WEIGHTS_VARIABLE] = self.weights
        packed = self._checkpoint_files()
        if len(packed) < len(self.checkpoints):  # then the packed ones are no longer found by themselves
            found[CHECKPOINTS_VARIABLE] = ",".join(Path(one).stem if one in packed else one for one in self.checkpoints)
        if self.landmarks is not None:
            found[LANDMARKS_VARIABLE] = "dlib" if self._has_predictor() else self.landmarks
        return found

    def fetched(self, environment: Mapping[str, str]) -> list[str]:
        """Return what the container fetches at its start, as NAME=VALUE. environment: all of its variables."""
        weights, checkpoints = environment.get(WEIGHTS_VARIABLE, ""), environment.get(CHECKPOINTS_VARIABLE, "")
        is_fetched = {
            WEIGHTS_VARIABLE: weights == "hub" or weights.startswith(SCHEMES),
            CHECKPOINTS_VARIABLE: any(one.strip().startswith(SCHEMES) for one in checkpoints.split(",")),
            LANDMARKS_VARIABLE: environment.get(LANDMARKS_VARIABLE) == "dlib" and not self._has_predictor(),
            HUB_VARIABLE: bool(environment.get(HUB_VARIABLE)),
        }
        return [f"{name}={environment[name]}" for name, is_so in is_fetched.items() if is_so]

    def notices(self, environment: Mapping[str, str]) -> list[str]:
        """Return what the licences of these models forbid. environment: all variables of the container."""
        weights = environment.get(WEIGHTS_VARIABLE) or self.weights or f"hf://{environment.get(HUB_VARIABLE)}"
        landmarks = environment.get(LANDMARKS_VARIABLE)
        is_published = weights in ("hub", f"hf://{PUBLISHED_REPOSITORY}")
        names = [*self.checkpoints, environment.get(CHECKPOINTS_VARIABLE, "")]
        notices = [DLIB_NOTICE] if landmarks == "dlib" or (is_published and landmarks is None) else []
        return notices + ([WAV2LIP_NOTICE] if any(name in one for one in names for name in CHECKPOINT_NAMES) else [])

    def _checkpoint_files(self) -> list[str]:
        return [one for one in self.checkpoints if is_file(one, WEIGHT_SUFFIXES)]

    def _has_predictor(self) -> bool:
        return self.landmarks is not None and is_file(self.landmarks, (PREDICTOR_SUFFIX,))


def add_selection_arguments(parser: argparse.ArgumentParser, named: str) -> None:
    """Add --weights, --checkpoint and --landmarks. named: what happens to a model that is not a file."""
    group = parser.add_argument_group("models", f"a file is packed into the archive; {named}")
    group.add_argument(
        "--weights",
        metavar="MODEL",
        help=f"lip-reading weights: {', '.join(READING_SETS)}, FILE, s3://BUCKET/KEY or hf://OWNER/NAME "
        "(default: starter)",
    )
    group.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="MODEL",
        help="lip-sync checkpoint: wav2lip.pth or wav2lip_gan.pth, which you supply, s3://BUCKET/KEY or "
        "hf://OWNER/NAME; repeatable (default: starter)",
    )
    group.add_argument(
        "--landmarks",
        metavar="NAME|FILE",
        help="face landmarks: mediapipe, dlib, or dlib's predictor for 68 points (FILE.dat), which may not be used "
        "commercially (default: those that the weights were trained with)",
    )


def is_file(model: str, suffixes: Sequence[str]) -> bool:
    return not model.startswith(SCHEMES) and model.endswith(tuple(suffixes))


def check_model(model: str, option: str, sets: Sequence[str]) -> None:
    """Raise WrongRequest unless this is a known set, an address, or a file that exists."""
    if model in sets or (model.startswith(SCHEMES) and "/" in model.partition("://")[2]):
        return
    if is_file(model, WEIGHT_SUFFIXES):
        check_file(Path(model))
        return
    hint = f"; a repository of the Hub is written hf://{model}" if model.count("/") == 1 else ""
    raise WrongRequest(
        f"{option} {model}: expected {', '.join(sets)}, a file ({', '.join(WEIGHT_SUFFIXES)}), s3://BUCKET/KEY or "
        f"hf://OWNER/NAME{hint}"
    )


def check_checkpoint(checkpoint: str) -> None:
    """Raise WrongRequest unless this is a set, an address, or a file with a name that the engines look for."""
    if is_file(checkpoint, WEIGHT_SUFFIXES) and Path(checkpoint).name not in CHECKPOINT_NAMES:
        raise WrongRequest(f"--checkpoint {checkpoint}: expected a file named {' or '.join(CHECKPOINT_NAMES)}")
    check_model(checkpoint, "--checkpoint", SYNC_SETS)


def check_predictor(predictor: str) -> None:
    """Raise WrongRequest unless this is a file that may be dlib's predictor."""
    if not is_file(predictor, (PREDICTOR_SUFFIX,)):
        raise WrongRequest(
            f"--landmarks {predictor}: expected {', '.join(LANDMARKERS)}, or dlib's predictor (FILE{PREDICTOR_SUFFIX})"
        )
    check_file(Path(predictor))
