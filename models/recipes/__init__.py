"""Recipes of small nets, one a task: each trains in minutes on two cores from public data that a user names.

    python -m onnxptq.models.recipes.detector --data blood_cells/ -o cells.onnx

Every file says what it was trained for in its metadata, so that `onnxptq quantize cells.onnx --data ...` needs no more.
The nets are small on purpose: what INT8 does to them is seen in minutes.
"""
