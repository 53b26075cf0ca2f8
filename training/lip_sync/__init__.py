"""How the starter weights of Wav2Lip were made: face packs, samples, training, gain."""
