"""A small transformer that tells whether a sentence likes a film: only its recipe comes with onnxptq (README.md)."""
