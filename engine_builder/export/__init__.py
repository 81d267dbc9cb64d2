"""From torch to ONNX: one exporter for every format, with true low-precision weights in the file."""
