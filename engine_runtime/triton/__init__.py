"""The Triton model repository, its models, and a local tritonserver."""
