from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from inference.errors import WrongWeights
from inference.weights.onnx_reader import read_onnx


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"", "not an ONNX model"),
        (b"hello, this is text", "not an ONNX model"),
        (b"\x3a\xff\xff\xff\xff\x0f", "not an ONNX model"),  # a graph longer than the file
        (b"\x3a\x02\x0a\x05", "not an ONNX model"),  # a node longer than the graph
        (b"\xff" * 11, "not an ONNX model"),  # an endless varint
    ],
)
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, blob: bytes, words: str):
    (tmp_path / "model.onnx").write_bytes(blob)
    with pytest.raises(WrongWeights, match=words):
        read_onnx(tmp_path / "model.onnx")


def test_tensors_in_another_file_are_not_read(tmp_path: Path):
    tensor = onnx.numpy_helper.from_array(np.zeros(3, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    (tmp_path / "model.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(WrongWeights, match="are in another file"):
        read_onnx(tmp_path / "model.onnx")
