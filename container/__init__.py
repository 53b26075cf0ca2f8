"""How the world reaches the engines: the command line and the HTTP, WebSocket and gRPC servers."""
