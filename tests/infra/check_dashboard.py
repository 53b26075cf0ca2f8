"""Check a dashboard against the classes that Grafana publishes for its form: `make check-stack` runs it there.

    python tests/infra/check_dashboard.py FILE

The classes ignore what they do not have, which is found by comparing what they kept. Exit code: 1 if they lost a field.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from kept_fields import lost_fields

PACKAGE = "grafana-foundation-sdk"  # its version ends with Grafana's


def main(path: str) -> int:
    """Print the fields that Grafana does not have. Returns: the exit code."""
    register_default_plugins()
    given = json.loads(Path(path).read_text("utf-8"))
    lost = list(lost_fields(given, json.loads(JSONEncoder().encode(Dashboard.from_json(given)))))
    grafana = version(PACKAGE).rpartition("!")[2]
    print(f"{path}: {', '.join(lost)}: not of Grafana {grafana}" if lost else f"{path}: valid by Grafana {grafana}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
