"""The tokens of Kokoro-82M, a network that speaks."""

from __future__ import annotations

# Numbers of the phonemes and marks of English. Source: config.json of hexgrad/Kokoro-82M.
TOKENS = {
    **dict(zip(";:,.!?—…", (1, 2, 3, 4, 5, 6, 9, 10), strict=True)), " ": 16, "ᵊ": 42,
    **dict(zip("abcdef", range(43, 49), strict=True)), **dict(zip("hijklmnopqrstuvwxyz", range(50, 69), strict=True)),
    "ɑ": 69, "ɐ": 70, "ɒ": 71, "æ": 72, "ɔ": 76, "ð": 81, "ə": 83, "ɚ": 85, "ɛ": 86, "ɜ": 87, "ɡ": 92, "ɪ": 102,
    "ŋ": 112, "θ": 119, "ɹ": 123, "ɾ": 125, "ʃ": 131, "ʊ": 135, "ʌ": 138, "ʒ": 147, "ʔ": 148, "ˈ": 156, "ˌ": 157,
    "ː": 158, "ᵻ": 177,
}  # fmt: skip
