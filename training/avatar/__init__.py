"""The recipe of the starter avatar: utterances, audio encoder, U-Net, assembly."""
