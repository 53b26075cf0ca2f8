"""How the starter avatar was made: utterances, audio encoder, U-Net, assembly."""
