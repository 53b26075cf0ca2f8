"""The decoder of untrusted media in a child process: limits, protocol, shared memory."""
