"""Avatars of voice agents: LiveKit Agents and Pipecat. Each needs the extra of its name."""
