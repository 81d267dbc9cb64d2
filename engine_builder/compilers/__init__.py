"""From ONNX to an engine: OpenVINO for the CPU, TensorRT and TensorRT-RTX for GPUs."""
