"""The gRPC service of the avatars; setup.py generates the stubs."""
