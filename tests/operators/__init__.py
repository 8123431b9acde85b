"""Every operator that ONNX Runtime's static quantizer knows, quantized by it and by onnxptq."""
