"""Live sessions over WebRTC (WHEP): tracks, peer connections and their HTTP resources. They need the extra `webrtc`."""
