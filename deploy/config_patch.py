"""--endpoint-config-json: what the caller changes in the request for CreateEndpointConfig, after everything else.

The rule is JSON Merge Patch (RFC 7396): an object is merged key by key, null removes a key, any other value replaces.
There is one exception. A list would replace the whole list, but ProductionVariants has the one variant that all options
describe: so the one object in the patch's list is merged into that variant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.errors import WrongRequest

OPTION = "--endpoint-config-json"
VARIANTS = "ProductionVariants"
MAX_BYTES = 1 << 20  # far above what AWS takes
# By these the command finds its own resources again.
OWN_NAMES = ("EndpointConfigName",)
OWN_VARIANT_NAMES = ("VariantName", "ModelName")
# They make it another kind of endpoint, whose calls and alarms differ.
KIND, VARIANT_KIND = "AsyncInferenceConfig", "ServerlessConfig"


def read_patch(path: Path) -> dict[str, Any]:
    """Return the file's JSON object. Raises: WrongRequest if it has none, or names what the command decides."""
    try:
        with path.open("rb") as file:
            contents = file.read(MAX_BYTES + 1)
        patch = json.loads(contents) if len(contents) <= MAX_BYTES else None
    except OSError as err:
        raise WrongRequest(f"{OPTION} {path}: {err.strerror}") from err
    except ValueError as err:
        raise WrongRequest(f"{OPTION} {path}: not JSON: {err}") from err
    if not isinstance(patch, dict):
        raise WrongRequest(f"{OPTION} {path}: expected a JSON object of at most {MAX_BYTES} bytes")
    check_own(OWN_NAMES, patch)
    variants = patch.get(VARIANTS, [{}])
    if not isinstance(variants, list) or len(variants) != 1 or not isinstance(variants[0], dict):
        raise WrongRequest(f"{OPTION}: {VARIANTS}: expected a list with one object, for the one variant")
    check_own(OWN_VARIANT_NAMES, variants[0])
    return patch


def check_own(names: tuple[str, ...], patch: Mapping[str, Any]) -> None:
    given = [name for name in names if name in patch]
    if given:
        raise WrongRequest(f"{OPTION}: {given[0]}: this name is the command's own")


def apply_patch(request: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request with the patch merged into it.

    Raises: WrongRequest if that would make a real-time endpoint asynchronous or serverless, or the reverse.
    """
    rest = {key: value for key, value in patch.items() if key != VARIANTS}
    [variant] = request[VARIANTS]
    [changes] = patch.get(VARIANTS, [{}])
    merged: dict[str, Any] = merge(request, rest)
    merged[VARIANTS] = [merge(variant, changes)]
    if (KIND in merged) != (KIND in request) or (VARIANT_KIND in merged[VARIANTS][0]) != (VARIANT_KIND in variant):
        raise WrongRequest(f"{OPTION}: {KIND} and {VARIANT_KIND} are chosen by --mode")
    return merged


def merge(target: Any, patch: Any) -> Any:
    """Return the target with the patch merged into it, by RFC 7396."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged
