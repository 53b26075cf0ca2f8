"""Live avatars: loaded packages, sessions that stream frames in real time, and the wire formats of older clients."""
