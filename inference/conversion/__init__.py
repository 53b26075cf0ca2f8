"""Converts weights between formats (safetensors, ONNX, OpenVINO) and quantises them to int8."""
