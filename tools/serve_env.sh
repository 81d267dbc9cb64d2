#!/bin/sh
# Makes the two environments that serving needs: .venv-serve with what the models import, .venv-tritonserver with NVIDIA's server.
# They are apart because the server's wheel would break torch's triton package and pins numpy 1. Takes seconds when they are there.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-uv}

venv() { # venv NAME REQUIREMENTS ARGUMENTS…
    name=$1 requirements=$2
    shift 2
    if [ -f "$name/.requirements" ] && cmp -s "$requirements" "$name/.requirements"; then
        return
    fi
    "$uv" venv --quiet --clear --python 3.11 "$name"
    "$uv" pip install --quiet --python "$name/bin/python" --require-hashes "$@" --requirements "$requirements"
    cp "$requirements" "$name/.requirements"
}

venv .venv-serve requirements/serve.txt
"$uv" pip install --quiet --python .venv-serve/bin/python --no-deps --editable .
venv .venv-tritonserver requirements/tritonserver.txt --no-deps
# The wheel forgot; Triton does it itself, but cannot where the environment is mounted read-only.
chmod +x .venv-tritonserver/lib/python3.11/site-packages/pytriton/tritonserver/python_backend_stubs/*/triton_python_backend_stub
