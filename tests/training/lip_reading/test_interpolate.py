from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from inference.models import LipCoordNet
from training.common.checkpoint import write_half_precision
from training.lip_reading.interpolate import main


@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_each_weight_is_a_share_of_the_way(tmp_path: Path, share: float):
    paths = [tmp_path / name for name in ("old", "new")]
    for path in paths:
        write_half_precision(LipCoordNet(), path)
    main([*map(str, paths), "--share", str(share), "-o", str(tmp_path / "folder" / "out")])
    old, new = map(load_file, paths)
    for name, value in load_file(tmp_path / "folder" / "out").items():
        expected = old[name].float() * (1 - share) + new[name].float() * share
        assert value.dtype == torch.float16
        assert torch.allclose(value.float(), expected, atol=1e-4), name


def test_a_share_beyond_both_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["old", "new", "--share", "1.5", "-o", str(tmp_path / "out")])
    assert "--share: expected 0 to 1, found 1.5" in capsys.readouterr().err
