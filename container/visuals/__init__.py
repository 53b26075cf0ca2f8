"""Images for people to look at: captions, contact sheets, mouth strips."""
