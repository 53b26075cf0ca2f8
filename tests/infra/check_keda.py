"""Check the objects of KEDA in files against its schemas: `make check-stack` runs it in the environment that has them.

    python tests/infra/check_keda.py FILE...

The schemas are classes that were generated from the definitions (CRDs) of a release of KEDA. They ignore fields that
they do not have, as a cluster does, which is found by comparing what they kept. Exit code: 1 if an object is invalid.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from cloudcoil.models.keda import v1alpha1
from kept_fields import lost_fields
from pydantic import ValidationError

API = "keda.sh/v1alpha1"
PACKAGE = "cloudcoil.models.keda"  # its version begins with KEDA's


def main(paths: list[str]) -> int:
    """Check every object of KEDA, and print a line for each. Returns: the exit code."""
    found = [(path, one) for path in paths for one in yaml.safe_load_all(Path(path).read_text("utf-8")) if one]
    ours = [(path, one) for path, one in found if one.get("apiVersion") == API]
    is_valid = bool(ours)
    for path, one in ours:
        faults = list(faults_of(one))
        is_valid &= not faults
        name = f"{path}: {one.get('kind')} {one.get('metadata', {}).get('name')}"
        print(f"{name}: {'; '.join(faults) or f'valid by KEDA {version(PACKAGE)}'}")
    if not ours:
        print(f"no object of {API} in {', '.join(paths)}")
    return 0 if is_valid else 1


def faults_of(document: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with an object."""
    schema = getattr(v1alpha1, str(document.get("kind")), None)
    if schema is None:
        yield f"{API} has no such kind"
        return
    try:
        kept = schema.model_validate(document).model_dump(mode="json", by_alias=True, exclude_unset=True)
    except ValidationError as err:
        for one in err.errors():
            yield f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
        return
    for place in lost_fields(document, kept):
        yield f"{place}: no such field"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
