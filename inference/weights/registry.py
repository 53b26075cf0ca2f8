"""The weight sets known by name: their sources, hashes and licences."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.errors import WeightsNotFound

PACKAGE_DIR = Path(__file__).parent


@dataclass(frozen=True)
class WeightFile:
    """One file of a set.

    name: its path in the set's folder, and in its repository on the Hub.
    sha256: of its bytes. None if unknown: the file is then trusted when it is first fetched; its hash is recorded next
        to it, and must stay the same.
    n_bytes: its size; None if unknown.
    """

    name: str
    sha256: str | None
    n_bytes: int | None = None


@dataclass(frozen=True)
class HubSource:
    """A repository on the Hugging Face Hub, at one commit, so that its files cannot change."""

    repository: str
    revision: str


@dataclass(frozen=True)
class WeightSet:
    """A set of weights with a name.

    alias: its name within its task: each task has its own `starter`. None if it only has its full name.
    shipped_in: the folder of this package with the files; None if they are fetched to the cache.
    landmarks: the landmark detector that the set was trained with; None if its network takes no landmarks.
    language: what it was trained to read ("grid": the six-word commands of the GRID corpus); None if it reads nothing.
    hub: the Hub repository that the files are fetched from; None if they come from elsewhere.
    is_user_supplied: whether the licence forbids redistribution, so that users download the files themselves.
    notice: licence restrictions to warn of when the set is used; None if there are none.
    """

    name: str
    task: str
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

    def names_for(self, task: str | None) -> set[str]:
        """Return the names that select this set for a task; None if the task is not known."""
        return {self.name} if task is None or self.alias is None else {self.name, self.alias}

    def read_card(self) -> dict[str, Any]:
        """Return the card that ships with the set: figures measured when it was made; empty if it has none."""
        if self.shipped_in is None:
            return {}
        card: dict[str, Any] = json.loads((self.shipped_in / "card.json").read_text("utf-8"))
        return card


LIP_READING = "lip reading"
STARTER = WeightSet(
    name="starter",
    task=LIP_READING,
    architecture="LipCoordNet",
    files=(
        WeightFile(
            "model.safetensors",
            "a74b021bf6aef906381b6aa60f5093ccbf08c685aa05dc91b92d8aa05bac43d5",
            13_555_896,
        ),
    ),
    source="shipped with Viseme, trained by the project on the GRID corpus",
    licence="Apache-2.0; training data: GRID corpus, Cooke et al. 2006 (attribution)",
    shipped_in=PACKAGE_DIR / "starter" / "lipcoordnet",
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
    task="face detection and landmarks",
    architecture="BlazeFace short range, face mesh",
    files=(FACE_DETECTOR, FACE_MESH),
    source="included in the Python package mediapipe 0.10.21",
    licence="Apache-2.0",
)

LIP_COORD_NET_REPOSITORY = HubSource("SilentSpeak/LipCoordNet", "ca518743854a518b70cbe0a5107dc7b2dd49b10e")
# The two hashes are those of public copies of these files on the Hub (wissemkarous/LIPREAD and
# wissemkarous/PFA-Demo, same paths); the predictor's is also that of davisking/dlib-models fd81b63.
HUB = WeightSet(
    name="hub",
    task=LIP_READING,
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
    task="face landmarks",
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
    task=LIP_SYNC,
    architecture="Wav2Lip, narrower",
    files=(
        WeightFile(
            "model.safetensors",
            "78b85dd548b26366a57b413274b1411031cd0cfb621e2da635e4e96624bfc42d",
            5_972_270,
        ),
    ),
    source="shipped with Viseme, trained by the project on the GRID corpus and on rendered speech",
    licence="Apache-2.0; training data: GRID corpus, Cooke et al. 2006 (attribution)",
    shipped_in=PACKAGE_DIR / "starter" / "wav2lip",
)
WAV2LIP_LICENCE = "research and personal use only, no commercial use: trained on LRS2 (BBC)"
WAV2LIP_NOTICE = (
    "Wav2Lip's published weights are for research and personal use only: their authors and the BBC's LRS2 data, "
    "which they were trained on, exclude commercial use"
)
WAV2LIP, WAV2LIP_GAN = (
    WeightSet(
        name=name,
        task=LIP_SYNC,
        architecture="Wav2Lip",
        files=(WeightFile(f"{name}.pth", None),),
        source="Rudrabha/Wav2Lip on GitHub (download it yourself)",
        licence=WAV2LIP_LICENCE,
        notice=WAV2LIP_NOTICE,
        is_user_supplied=True,
    )
    for name in ("wav2lip", "wav2lip_gan")
)
S3FD = WeightSet(
    name="s3fd",
    task="face detection",
    architecture="S3FD",
    files=(WeightFile("s3fd.pth", None),),
    source="Rudrabha/Wav2Lip or 1adrianb/face-alignment on GitHub (download it yourself)",
    licence="not stated for the weights; trained on WIDER FACE (research)",
    is_user_supplied=True,
)
LIVE = "live avatars"
# The audio encoder that all avatars of SyncTalk_2D share: their own checkpoints do not include it.
AVE = WeightSet(
    name="ave",
    task=LIVE,
    architecture="AudioVisualEncoder",
    files=(WeightFile("audio_visual_encoder.pth", None),),
    source="SyncTalk_2D on GitHub (download it yourself)",
    licence="not stated for the weights",
    is_user_supplied=True,
)

SWIN2SR = WeightSet(
    name="swin2sr",
    task="super-resolution",
    architecture="Swin2SR, classical, twice as large",
    files=(WeightFile("model.safetensors", "a515955815ab6dba3a9331d8c75db13a5166a5ffbcebf1a95ab676a5656ac4fb"),),
    source="caidas/swin2SR-classical-sr-x2-64 on the Hugging Face Hub, revision cee1c92",
    licence="Apache-2.0",
    hub=HubSource("caidas/swin2SR-classical-sr-x2-64", "cee1c923c6a37361c6e5650b65dcf4be821e5d52"),
)
# The networks of the avatar named `starter`; its frames are rendered when it is first used.
STARTER_AVATAR = WeightSet(
    name="starter_avatar",
    task=LIVE,
    architecture="AvatarUNet, AudioVisualEncoder",
    files=(
        WeightFile(
            "network.safetensors", "f65c8ac6c632c2afccff962cf4f67d47d180498c8523fc3afbdd1c2ac2a8c22a", 1_685_910
        ),
        WeightFile(
            "audio_encoder.safetensors", "94e6fedbffdd35be80adf2fd8ce6362b29428d64dfb9f98552e6b59f8a255619", 1_423_544
        ),
    ),
    source="shipped with Viseme, trained by the project on the synthetic speaker, voices of GRID and synthesisers",
    licence="Apache-2.0; training data: GRID corpus, Cooke et al. 2006 (attribution)",
    shipped_in=PACKAGE_DIR / "starter" / "avatar",
)
# The speech encoder whose other outputs are the audio half of `starter_sync`.
STARTER_VISEMES = WeightSet(
    name="starter_visemes",
    task="visemes",
    architecture="SpeechEncoder",
    files=(
        WeightFile(
            "model.safetensors",
            "155bf5de2080d30461d8c7038df5e7705ae823cdf10adcc786da8cbcb203ff63",
            1_322_352,
        ),
    ),
    source="shipped with Viseme, trained by the project on the GRID corpus and on synthesised speech",
    licence="Apache-2.0; training data: GRID corpus, Cooke et al. 2006 (attribution)",
    shipped_in=PACKAGE_DIR / "starter" / "visemes",
)

ALL_SETS = (
    *(STARTER, STARTER_SYNC, MEDIAPIPE, HUB, DLIB, WAV2LIP, WAV2LIP_GAN, S3FD, SWIN2SR, AVE, STARTER_AVATAR),
    STARTER_VISEMES,
)
REGISTRY = {one.name: one for one in ALL_SETS}


def find_set(name: str, task: str | None = None) -> WeightSet:
    """Return the set of this name, among those of a task if one is given.

    Raises: WeightsNotFound listing the known names.
    """
    known = [one for one in REGISTRY.values() if task in (None, one.task)]
    for one in known:
        if name in one.names_for(task):
            return one
    names = ", ".join(one.name if task is None else one.alias or one.name for one in known)
    raise WeightsNotFound(f"weights {name!r}: no such set and no such file; known: {names}")


def find_set_by_hash(sha256: str) -> WeightSet | None:
    """Return the set with a file of this hash; None if no set has one."""
    return next((one for one in REGISTRY.values() if sha256 in {file.sha256 for file in one.files}), None)
