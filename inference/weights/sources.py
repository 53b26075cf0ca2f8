"""Where a deployment looks for weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

HUB_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True)
class WeightSources:
    """Where weights are searched, in this order: the model directory, the cache, the Hub.

    cache: the folder of fetched weights.
    model_dir: the deployment's model folder (SageMaker's SM_MODEL_DIR); it may be read-only.
    hf_model_id: the deployment's Hub repository (HF_MODEL_ID).
    hf_offline: never connect to the Hub; use the cache only.
    """

    cache: Path
    model_dir: Path | None = None
    hf_model_id: str | None = None
    hf_endpoint: str = HUB_ENDPOINT
    hf_token: str | None = field(default=None, repr=False)
    hf_offline: bool = False
    s3_endpoint_url: str | None = None


def as_sources(sources: WeightSources | Path) -> WeightSources:
    """Return sources as they are; turn a folder into sources with this cache and nothing else."""
    return WeightSources(sources) if isinstance(sources, Path) else sources
