"""Deploy LipCoordNet by five options; all others of deploy.endpoint can be added."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from deploy import endpoint
from deploy.arguments import add_endpoint_arguments


def main(arguments: Sequence[str] | None = None) -> int:
    """Run deploy.endpoint with the same arguments, and return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    make_parser().parse_known_args(given)  # --help, and the options that are needed
    return endpoint.main(given)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.lipcoordnet", description=__doc__, allow_abbrev=False, epilog="see deploy/README.md"
    )
    add_endpoint_arguments(parser)
    parser.add_argument("--update", action="store_true", help="update an existing endpoint")
    return parser


if __name__ == "__main__":
    sys.exit(main())
