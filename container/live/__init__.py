"""Avatars that speak live: the packages of this server, its sessions, and the wire formats of older clients."""
