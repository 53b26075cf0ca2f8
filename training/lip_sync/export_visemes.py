"""Write the speech encoder that `viseme visemes` runs: a trained one as float16, with the names of its phonemes.

    python -m training.lip_sync.export_visemes ENCODER -o model.safetensors

ENCODER: encoder.safetensors of a run of `training.lip_sync.train_audio`. Prints the file's SHA-256 and size, which the
registry (inference/weights/registry.py) and card.json state.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inference.visemes.network import CLASSES_KEY
from inference.weights.checkpoint import write_arrays
from training.common.mouth_examples import PHONEME_CLASSES
from training.lip_sync.train_audio import read_encoder


def export(encoder: Path, output: Path) -> None:
    """Write an encoder's tensors as float16, except for the counters of batch norms."""
    state = read_encoder(encoder).state_dict()
    arrays = {
        name: value.numpy().astype(np.float16) if value.is_floating_point() else value.numpy()
        for name, value in state.items()
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(arrays, output, {CLASSES_KEY: json.dumps(PHONEME_CLASSES)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the file that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m training.lip_sync.export_visemes", description=__doc__.splitlines()[0]
    )
    parser.add_argument("encoder", type=Path, help="weights of a trained speech encoder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write")
    args = parser.parse_args(arguments)
    export(args.encoder, args.output)
    content = args.output.read_bytes()
    print(f"{hashlib.sha256(content).hexdigest()} {len(content)}")


if __name__ == "__main__":
    main()
