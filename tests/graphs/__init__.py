"""Tests of ONNX graphs; `small_graphs` is shared by them."""
