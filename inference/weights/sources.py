"""Where weights may be looked for on this deployment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

HUB_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True)
class WeightSources:
    """Searched in this order: the model directory, the cache, the Hub.

    cache: the folder that fetched weights are kept in.
    model_dir: a folder the deployment brought (SageMaker's SM_MODEL_DIR); it may be read-only.
    hf_model_id: the Hub repository the deployment named (HF_MODEL_ID).
    hf_offline: never ask the Hub; what is in the cache must do.
    """

    cache: Path
    model_dir: Path | None = None
    hf_model_id: str | None = None
    hf_endpoint: str = HUB_ENDPOINT
    hf_token: str | None = field(default=None, repr=False)
    hf_offline: bool = False
    s3_endpoint_url: str | None = None


def as_sources(sources: WeightSources | Path) -> WeightSources:
    """A folder alone stands for a deployment with nothing but a cache."""
    return WeightSources(sources) if isinstance(sources, Path) else sources
