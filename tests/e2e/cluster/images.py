"""Images of the cluster: imported from archives, for no registry can be reached.

The busybox image serves the cluster's own tests and stands in for the sandbox ("pause") image.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from tests.e2e.cluster import layout

_ARCHIVE = layout.RUN / "busybox.tar"
_PASSWD = b"root:x:0:0:root:/:/bin/sh\n"


def import_image(archive: Path) -> None:
    """Make the images of an OCI or Docker archive known to the cluster under the names that the archive gives them.

    Pods name them in full (`localhost/base:1`) with `imagePullPolicy: IfNotPresent` or `Never`.

    Raises:
        subprocess.CalledProcessError: The archive is none, or the cluster is down.
    """
    subprocess.run([*ctr(), "images", "import", archive], check=True, stdout=subprocess.DEVNULL)


def ctr() -> list[str]:
    """Return the command prefix of containerd's client, on this cluster's images."""
    return ["ctr", "--address", str(layout.CONTAINERD_SOCKET), "--namespace", "k8s.io"]


def image_names() -> list[str]:
    """Return the names of all images that pods can use."""
    listed = subprocess.run([*ctr(), "images", "ls", "-q"], capture_output=True, text=True, check=True).stdout
    return sorted(name for name in listed.split() if not name.startswith("sha256:"))


def import_own_images() -> None:
    """Import busybox, and the image of a pod's sandbox, which does nothing for as long as the pod lives."""
    _write_archive(_ARCHIVE)
    import_image(_ARCHIVE)


def _busybox_layer() -> bytes:
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
            _add(layer, folder, mode, type_=tarfile.DIRTYPE)
        _add(layer, "etc/passwd", 0o644, _PASSWD)
        _add(layer, "bin/busybox", 0o755, busybox.read_bytes())
        for name in sorted({*applets} - {"busybox"}):
            _add(layer, f"bin/{name}", 0o777, type_=tarfile.SYMTYPE, target="busybox")
    return buffer.getvalue()


def _write_archive(path: Path) -> None:
    """Write both images as one archive in the form of `docker save`.

    Source: https://github.com/moby/docker-image-spec/blob/main/v1.2.md.
    """
    layer = _busybox_layer()
    base = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    path_of_binaries = ["PATH=/bin"]
    configs = {
        layout.BUSYBOX_IMAGE: {**base, "config": {"Env": path_of_binaries, "Cmd": ["sh"]}},
        layout.PAUSE_IMAGE: {**base, "config": {"Env": path_of_binaries, "Entrypoint": ["/bin/sleep", "infinity"]}},
    }
    manifest: list[dict[str, Any]] = []
    with tarfile.open(path, "w") as archive:
        _add(archive, "layer.tar", 0o644, layer)
        for number, (name, config) in enumerate(configs.items()):
            _add(archive, f"config-{number}.json", 0o644, json.dumps(config).encode())
            manifest.append({"Config": f"config-{number}.json", "RepoTags": [name], "Layers": ["layer.tar"]})
        _add(archive, "manifest.json", 0o644, json.dumps(manifest).encode())


def _add(archive: tarfile.TarFile, name: str, mode: int, content: bytes = b"", *, type_: bytes = tarfile.REGTYPE, target: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.mode, member.type, member.linkname, member.size = mode, type_, target, len(content)
    archive.addfile(member, io.BytesIO(content))
