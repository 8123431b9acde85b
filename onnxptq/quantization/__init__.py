"""Quantization: which tensors matter, statistics in, QDQ graph out; targets."""
