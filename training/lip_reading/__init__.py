"""The recipe of the starter weights of LipCoordNet: rendered clips, mouth packs, augmentation, training."""
