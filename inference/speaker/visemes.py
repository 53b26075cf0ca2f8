"""The mouth shape and the duration of each phoneme.

Phonemes that look the same share one entry: B, P and M; D, T and N; S and Z; F and V; CH and JH; TH and DH; K, G and
HH. Nothing else about a phoneme reaches the frame.
"""

from __future__ import annotations

from dataclasses import dataclass

from inference.rendering.mouth_shape import MouthShape

FREE_WEIGHT = 0.02  # of the parts of a shape that a consonant does not need: its neighbours determine them


@dataclass(frozen=True)
class Viseme:
    """A mouth shape with a duration.

    needs: parts of the shape that the phoneme requires; the others yield to its neighbours.
    """

    shape: MouthShape
    duration_s: float
    needs: frozenset[str]

    def weights(self) -> tuple[float, ...]:
        """Return the weight of each part of the shape, in the order of MouthShape's fields."""
        return tuple(1.0 if name in self.needs else FREE_WEIGHT for name in MouthShape.__dataclass_fields__)


ALL_PARTS = frozenset(MouthShape.__dataclass_fields__)


def vowel(duration_s: float, **shape: float) -> Viseme:
    return Viseme(MouthShape(**shape), duration_s, ALL_PARTS)


def consonant(duration_s: float, needs: str, **shape: float) -> Viseme:
    return Viseme(MouthShape(**shape), duration_s, frozenset(needs.split()))


REST = vowel(0.10)
BILABIAL = consonant(0.095, "open press tuck teeth tongue", press=1.0)
LABIODENTAL = consonant(0.105, "open press tuck teeth", open=0.12, tuck=1.0, teeth=0.5)
DENTAL = consonant(0.095, "open tongue teeth press tuck", open=0.45, tongue=1.0, teeth=0.5)
ALVEOLAR = consonant(0.075, "open press tuck teeth", open=0.35, wide=0.2, teeth=0.5, tongue=0.25)
SIBILANT = consonant(0.11, "open press tuck teeth", open=0.2, wide=0.45, teeth=1.0)
POSTALVEOLAR = consonant(0.12, "open press tuck teeth round", open=0.35, round=0.6, teeth=0.9)
VELAR = consonant(0.08, "press tuck", open=0.4)
LATERAL = consonant(0.08, "open tongue press tuck", open=0.6, tongue=0.9, teeth=0.3)
RHOTIC = consonant(0.085, "round press tuck open", open=0.35, round=0.55)
LABIAL_GLIDE = consonant(0.09, "round open press tuck", open=0.12, round=1.0)
PALATAL_GLIDE = consonant(0.07, "wide press tuck", open=0.3, wide=0.5, teeth=0.3)

CLOSE_FRONT = {"open": 0.45, "wide": 0.95, "teeth": 0.55}
NEAR_FRONT = {"open": 0.55, "wide": 0.55, "teeth": 0.35}
MID_FRONT = {"open": 0.9, "wide": 0.5, "teeth": 0.3}
OPEN_BACK = {"open": 1.5}
CLOSE_BACK = {"open": 0.28, "round": 1.0}
NEAR_BACK = {"open": 0.5, "round": 0.6}

# A diphthong has two shapes.
VISEMES: dict[str, tuple[Viseme, ...]] = {
    **dict.fromkeys(("B", "P", "M"), (BILABIAL,)),
    **dict.fromkeys(("F", "V"), (LABIODENTAL,)),
    **dict.fromkeys(("TH", "DH"), (DENTAL,)),
    **dict.fromkeys(("T", "D", "N"), (ALVEOLAR,)),
    **dict.fromkeys(("S", "Z"), (SIBILANT,)),
    **dict.fromkeys(("CH", "JH"), (POSTALVEOLAR,)),
    **dict.fromkeys(("K", "G", "HH"), (VELAR,)),
    "L": (LATERAL,),
    "R": (RHOTIC,),
    "W": (LABIAL_GLIDE,),
    "Y": (PALATAL_GLIDE,),
    "IY": (vowel(0.15, **CLOSE_FRONT),),
    "IH": (vowel(0.09, **NEAR_FRONT),),
    "EH": (vowel(0.12, **MID_FRONT),),
    "AE": (vowel(0.13, open=1.15, wide=0.5, teeth=0.2),),
    "AA": (vowel(0.19, **OPEN_BACK),),
    "AH": (vowel(0.10, open=0.9, wide=0.1),),
    "AO": (vowel(0.17, open=0.95, round=0.65),),
    "UW": (vowel(0.15, **CLOSE_BACK),),
    "EY": (vowel(0.10, **MID_FRONT), vowel(0.09, **CLOSE_FRONT)),
    "AY": (vowel(0.12, **OPEN_BACK), vowel(0.09, **NEAR_FRONT)),
    "AW": (vowel(0.12, **OPEN_BACK), vowel(0.09, **NEAR_BACK)),
    "OW": (vowel(0.10, open=0.8, round=0.4), vowel(0.09, **CLOSE_BACK)),
}
