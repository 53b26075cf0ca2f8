"""The visemes of phonemes.

Phonemes have espeak-ng's names, without marks of length and variant; "_" is a pause. Visemes are the 15 of Oculus
Lipsync, in its order. Vowels and glides follow TalkingHead's table for Azure's visemes if they could be two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float32]  # (15,), 0..1

# Source: Oculus Lipsync, "Viseme Reference"; its enumeration has this order.
OCULUS_VISEMES = ("sil", "PP", "FF", "TH", "DD", "kk", "CH", "SS", "nn", "RR", "aa", "E", "ih", "oh", "ou")
N_VISEMES = len(OCULUS_VISEMES)
SILENCE = OCULUS_VISEMES.index("sil")
PAUSE = "_"  # the phoneme of silence

# Diphthongs have two, triphthongs three, in the order of the speech.
PHONEME_VISEMES: dict[str, tuple[str, ...]] = {
    PAUSE: ("sil",),
    **dict.fromkeys("pbm", ("PP",)),
    **dict.fromkeys("fv", ("FF",)),
    **dict.fromkeys("TD", ("TH",)),
    **dict.fromkeys("td*", ("DD",)),
    **dict.fromkeys("kgxh?", ("kk",)),
    **dict.fromkeys(("tS", "dZ", "S", "Z"), ("CH",)),
    **dict.fromkeys("sz", ("SS",)),
    **dict.fromkeys("nNlL", ("nn",)),
    **dict.fromkeys("rR3", ("RR",)),
    **dict.fromkeys(("a", "A", "A@", "V"), ("aa",)),
    **dict.fromkeys("Ee@", ("E",)),
    **dict.fromkeys("Iij;", ("ih",)),
    **dict.fromkeys(("0", "O", "o", "O@", "o@"), ("oh",)),
    **dict.fromkeys("uUw", ("ou",)),
    "@L": ("E", "nn"),
    "aI": ("aa", "ih"),
    "aU": ("aa", "ou"),
    "eI": ("E", "ih"),
    "oU": ("oh", "ou"),
    "OI": ("oh", "ih"),
    "I@": ("ih", "E"),
    "i@": ("ih", "E"),
    "e@": ("E",),
    "U@": ("ou", "E"),
    "u@": ("ou", "E"),
    "aI@": ("aa", "ih", "E"),
    "aU@": ("aa", "ou", "E"),
}


def mixing_matrix(classes: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return the share of each viseme in each phoneme, (phonemes, 15); a row's sum is 1.

    Raises: KeyError if a phoneme has no visemes.
    """
    matrix = np.zeros((len(classes), N_VISEMES), np.float32)
    for row, name in zip(matrix, classes, strict=True):
        for viseme in PHONEME_VISEMES[name]:
            row[OCULUS_VISEMES.index(viseme)] += 1 / len(PHONEME_VISEMES[name])
    return matrix
