"""The subcommands of `viseme`, one module each, and the files that several of them share."""
