#!/bin/sh
# Usage: link_backends.sh PREFIX. Puts the Python back end of NVIDIA's wheel and the stub of our Python together in PREFIX/backends.
# Links and not copies: the environment may be mounted only when the container runs.
set -eu
wheel=$1/.venv-tritonserver/lib/python3.11/site-packages/pytriton/tritonserver
backend=$1/backends/python
mkdir -p "$backend"
if [ -d "$wheel" ]; then
    chmod +x "$wheel"/python_backend_stubs/*/triton_python_backend_stub # The wheel forgot, and Triton may not in a read-only image.
fi
for file in backends/python/libtriton_python.so backends/python/triton_python_backend_utils.py \
    python_backend_stubs/3.11/triton_python_backend_stub; do
    ln -sfn "$wheel/$file" "$backend/$(basename "$file")"
done
