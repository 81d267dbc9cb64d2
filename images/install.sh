#!/bin/sh
# Usage: install.sh ENVIRONMENT REQUIREMENTS [PIP-OPTION…]. Makes a Python environment of pinned packages while an image is built.
# With INSTALL=false it makes an empty folder: whoever runs the image then mounts the environment there.
set -eu
environment=$1 requirements=$2
shift 2
mkdir -p "$environment"
if [ "${INSTALL:-true}" != true ]; then
    exit 0
fi
if [ ! -x "$environment/bin/python3" ]; then
    python3 -m venv --without-pip "$environment" # The base's own pip installs into it: no build tool stays in the image.
fi
set -- "$@" --no-cache-dir --disable-pip-version-check --root-user-action=ignore
if [ "$requirements" = project ]; then
    # The project's metadata, and the path to its code, which is a later layer, for it changes more often than what it needs.
    python3 -m pip --python "$environment/bin/python3" install --no-deps --editable . "$@"
    printf '%s\n' "$PWD" "$PWD/operator" >"$("$environment/bin/python3" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/code.pth"
else
    python3 -m pip --python "$environment/bin/python3" install --require-hashes --requirement "$requirements" "$@"
fi
