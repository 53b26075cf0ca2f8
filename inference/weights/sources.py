"""Where a deployment looks for weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

HUB_ENDPOINT = "https://huggingface.co"
PACKED_FOLDER = Path("data", "weights")  # of a model directory


@dataclass(frozen=True)
class WeightSources:
    """Where weights are searched, in this order: the model directory, the cache, the Hub.

    cache: the folder of fetched weights.
    compiled: the folder of compiled networks; None compiles them at each start.
    model_dir: the deployment's model folder (SageMaker's SM_MODEL_DIR); it may be read-only.
    hf_model_id: the deployment's Hub repository (HF_MODEL_ID).
    hf_offline: never connect to the Hub; use the cache only.
    weights: the deployment's lip-reading weights (VISEME_WEIGHTS), as a name, path, s3:// or hf://; they take
        precedence over what the model directory contains.
    checkpoints: the same for its lip-sync checkpoints (VISEME_CHECKPOINTS).
    """

    cache: Path
    model_dir: Path | None = None
    hf_model_id: str | None = None
    hf_endpoint: str = HUB_ENDPOINT
    hf_token: str | None = field(default=None, repr=False)
    hf_offline: bool = False
    s3_endpoint_url: str | None = None
    weights: str | None = None
    checkpoints: tuple[str, ...] = ()
    compiled: Path | None = None

    @property
    def packed(self) -> Path | None:
        """The folder of a model archive that has the layout of the cache, and is used before it; None without one."""
        return self.model_dir / PACKED_FOLDER if self.model_dir else None


def as_sources(sources: WeightSources | Path) -> WeightSources:
    """Return sources as they are; turn a folder into sources with this cache and nothing else."""
    return WeightSources(sources) if isinstance(sources, Path) else sources
