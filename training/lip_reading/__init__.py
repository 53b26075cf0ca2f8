"""How the starter weights of LipCoordNet were made: clips, mouth packs, augmentation, training."""
