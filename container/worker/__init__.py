"""Worker processes: the pool that runs them, the messages between them and the server, and the routes they answer."""
