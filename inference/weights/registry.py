"""The weight sets Viseme knows by name: where from, which bytes, under which licence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.errors import WeightsNotFound

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class WeightFile:
    """One file of a set.

    name: its path in the set's folder, and in its repository on the Hub.
    sha256: of its bytes; None where it is not known: such a file is trusted when it is first
        fetched, its hash is written beside it, and must be the same ever after.
    n_bytes: its size; None where it is not known to the byte.
    """

    name: str
    sha256: str | None
    n_bytes: int | None = None


@dataclass(frozen=True)
class HubSource:
    """A repository on the Hugging Face Hub, at one commit: what lies there cannot change."""

    repository: str
    revision: str


@dataclass(frozen=True)
class WeightSet:
    """A set of weights that can be asked for by name.

    alias: what it is called where the job is known: each job has its own `starter`; None: by its name alone.
    shipped_in: folder of this package that holds the files; None where they are fetched to the cache.
    landmarks: the landmarker whose points the set was trained with; None where it takes none.
    language: what the text can be ("grid" for the GRID corpus' six-word commands); None where none.
    hub: where the files are fetched from; None where they come otherwise.
    is_user_supplied: whether the files may not be passed on, so that each user brings their own.
    notice: what whoever chooses the set must be told about its licence; None where nothing binds them.
    """

    name: str
    job: str
    architecture: str
    files: tuple[WeightFile, ...]
    source: str
    licence: str
    alias: str | None = None
    shipped_in: Path | None = None
    landmarks: str | None = None
    language: str | None = None
    hub: HubSource | None = None
    notice: str | None = None
    is_user_supplied: bool = False

    def names(self, job: str | None) -> set[str]:
        """What it may be asked for by, where the job is known, and where it is not (None)."""
        return {self.name} if job is None or self.alias is None else {self.name, self.alias}

    def read_card(self) -> dict[str, Any]:
        """The set's own figures, as measured when it was made; empty where it has none."""
        if self.shipped_in is None:
            return {}
        card: dict[str, Any] = json.loads((self.shipped_in / "card.json").read_text("utf-8"))
        return card


STARTER = WeightSet(
    name="starter",
    job="lip reading",
    architecture="LipCoordNet",
    files=(
        WeightFile(
            "model.safetensors",
            "1f6cda7a8663ab90294eb0395660ff6b02eae82567b9863786f5a36e301dda39",
            13_555_896,
        ),
    ),
    source="shipped with Viseme, trained by the project on the GRID corpus",
    licence="Apache-2.0; training data: GRID corpus, Cooke et al. 2006 (attribution)",
    shipped_in=PACKAGE / "starter" / "lipcoordnet",
    landmarks="mediapipe",
    language="grid",
)

FACE_DETECTOR = WeightFile(
    "face_detection_short_range.tflite",
    "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    229_714,
)
FACE_MESH = WeightFile(
    "face_landmark.tflite",
    "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    1_242_398,
)
MEDIAPIPE = WeightSet(
    name="mediapipe",
    job="face detection and landmarks",
    architecture="BlazeFace short range, face mesh",
    files=(FACE_DETECTOR, FACE_MESH),
    source="carried by the Python package mediapipe 0.10.21",
    licence="Apache-2.0",
)

LIP_COORD_NET_REPOSITORY = HubSource("SilentSpeak/LipCoordNet", "ca518743854a518b70cbe0a5107dc7b2dd49b10e")
# Its two hashes are those of the public copies of these files on the Hub (wissemkarous/LIPREAD and
# wissemkarous/PFA-Demo, same paths); the predictor's is also that of davisking/dlib-models fd81b63.
HUB = WeightSet(
    name="hub",
    job="lip reading",
    architecture="LipCoordNet",
    files=(
        WeightFile(
            "pretrain/LipCoordNet_coords_loss_0.025581153109669685_wer_0.01746208431890914_cer_0.006488426950253695.pt",
            "403ed48e2d410dcbd161f9572d0dc7778bf4fa5552daa5a903daf9bca43f56bc",
        ),
    ),
    source="SilentSpeak/LipCoordNet on the Hugging Face Hub, revision ca51874",
    licence="MIT; training data: GRID corpus, Cooke et al. 2006 (attribution)",
    landmarks="dlib",
    language="grid",
    hub=LIP_COORD_NET_REPOSITORY,
)
DLIB = WeightSet(
    name="dlib",
    job="face landmarks",
    architecture="shape predictor, 68 points (GTX)",
    files=(
        WeightFile(
            "lip_coordinate_extraction/shape_predictor_68_face_landmarks_GTX.dat",
            "249a69a1d5f2d7c714a92934d35367d46eb52dc308d46717e82d49e8386b3b80",
        ),
    ),
    source="SilentSpeak/LipCoordNet on the Hugging Face Hub, revision ca51874",
    licence="no commercial use: its training data, iBUG 300-W, excludes it",
    hub=LIP_COORD_NET_REPOSITORY,
    notice="dlib's 68-point predictor was trained on the iBUG 300-W data, whose licence excludes commercial use; "
    "ask Imperial College London before you use it in a product",
)

LIP_SYNC = "lip sync"
STARTER_SYNC = WeightSet(
    name="starter_sync",
    alias="starter",
    job=LIP_SYNC,
    architecture="Wav2Lip, narrower",
    files=(
        WeightFile(
            "model.safetensors",
            "453b113ed1b4677aa00d9fa5c4989319ed797ce4dae8de61c37568f1816dfcf9",
            5_972_270,
        ),
    ),
    source="shipped with Viseme, trained by the project on the GRID corpus and on rendered speech",
    licence="Apache-2.0; training data: GRID corpus, Cooke et al. 2006 (attribution)",
    shipped_in=PACKAGE / "starter" / "wav2lip",
)
WAV2LIP_LICENCE = "research and personal use only, no commercial use: trained on LRS2 (BBC)"
WAV2LIP_NOTICE = (
    "Wav2Lip's published weights are for research and personal use only: their authors and the BBC's LRS2 data, "
    "which they were trained on, exclude commercial use"
)
WAV2LIP, WAV2LIP_GAN = (
    WeightSet(
        name=name,
        job=LIP_SYNC,
        architecture="Wav2Lip",
        files=(WeightFile(f"{name}.pth", None),),
        source="bring your own, from Rudrabha/Wav2Lip on GitHub",
        licence=WAV2LIP_LICENCE,
        notice=WAV2LIP_NOTICE,
        is_user_supplied=True,
    )
    for name in ("wav2lip", "wav2lip_gan")
)
S3FD = WeightSet(
    name="s3fd",
    job="face detection",
    architecture="S3FD",
    files=(WeightFile("s3fd.pth", None),),
    source="bring your own, from Rudrabha/Wav2Lip or 1adrianb/face-alignment on GitHub",
    licence="not stated for the weights; trained on WIDER FACE (research)",
    is_user_supplied=True,
)
LIVE = "live avatars"
# What avatars of SyncTalk_2D hear with: one encoder for all of them, which their own checkpoints do not hold.
AVE = WeightSet(
    name="ave",
    job=LIVE,
    architecture="AudioVisualEncoder",
    files=(WeightFile("audio_visual_encoder.pth", None),),
    source="bring your own, from SyncTalk_2D on GitHub",
    licence="not stated for the weights",
    is_user_supplied=True,
)

SWIN2SR = WeightSet(
    name="swin2sr",
    job="super-resolution",
    architecture="Swin2SR, classical, twice as large",
    files=(WeightFile("model.safetensors", "a515955815ab6dba3a9331d8c75db13a5166a5ffbcebf1a95ab676a5656ac4fb"),),
    source="caidas/swin2SR-classical-sr-x2-64 on the Hugging Face Hub, revision cee1c92",
    licence="Apache-2.0",
    hub=HubSource("caidas/swin2SR-classical-sr-x2-64", "cee1c923c6a37361c6e5650b65dcf4be821e5d52"),
)
# The avatar that is called `starter`; its pictures are drawn where it is used.
STARTER_AVATAR = WeightSet(
    name="starter_avatar",
    job=LIVE,
    architecture="AvatarUNet, AudioVisualEncoder",
    files=(
        WeightFile(
            "network.safetensors", "9ba02340eaee2510f86a54699542cd575602a70c775168eee89c384e0d2f898f", 1_685_910
        ),
        WeightFile(
            "audio_encoder.safetensors", "145044434e34b7bf701e2321e37f67f3e089bedcf424a588437678d3ab681b8f", 1_423_544
        ),
    ),
    source="shipped with Viseme, trained by the project on the synthetic speaker and the voice of one GRID speaker",
    licence="Apache-2.0; training data: GRID corpus, Cooke et al. 2006 (attribution)",
    shipped_in=PACKAGE / "starter" / "avatar",
)

REGISTRY = {
    one.name: one
    for one in (STARTER, STARTER_SYNC, MEDIAPIPE, HUB, DLIB, WAV2LIP, WAV2LIP_GAN, S3FD, SWIN2SR, AVE, STARTER_AVATAR)
}


def find_set(name: str, job: str | None = None) -> WeightSet:
    """The set of that name, for that job where one is given.

    Raises: WeightsNotFound naming what there is.
    """
    known = [one for one in REGISTRY.values() if job in (None, one.job)]
    for one in known:
        if name in one.names(job):
            return one
    names = ", ".join(one.name if job is None else one.alias or one.name for one in known)
    raise WeightsNotFound(f"weights {name!r}: no such set and no such file; known: {names}")


def set_of_hash(sha256: str) -> WeightSet | None:
    """The set that has a file of these very bytes, whatever it is called here."""
    return next((one for one in REGISTRY.values() if sha256 in {file.sha256 for file in one.files}), None)
