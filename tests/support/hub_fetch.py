"""Fetches a weight set with the huggingface_hub of whatever Python runs this file.

Arguments: the set's name, the cache, the Hub's address. Prints JSON: the version, and the files or the error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import huggingface_hub

from inference.errors import VisemeError
from inference.weights import hub
from inference.weights.fetch import fetch
from inference.weights.sources import WeightSources


def main() -> None:
    name, cache, endpoint, token = sys.argv[1:]
    sources = WeightSources(Path(cache), hf_endpoint=endpoint, hf_token=token or None)
    found: dict[str, object] = {"version": huggingface_hub.__version__}
    try:
        if "/" in name:
            source, files = hub.list_files(name, sources)
            found |= {"revision": source.revision, "files": files}
        else:
            found["files"] = [str(path) for path in fetch(name, sources)]
    except VisemeError as err:
        found |= {"error": type(err).__name__, "message": str(err)}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
