"""Code that several trainings share: the training loop, checkpoints, packs and training speech."""
