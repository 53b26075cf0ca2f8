"""Sizes and layers of the networks: what graphs and checks of weights need, without torch."""
