"""The recipe of the starter weights of Wav2Lip: face packs, samples, training, mouth gain."""
