"""Writes weights in other formats (safetensors, ONNX, OpenVINO) and quantises them to int8."""
