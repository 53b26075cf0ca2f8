"""Lip reading, lip sync and live avatars."""
