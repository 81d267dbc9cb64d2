"""The cluster's own programs, built from Go modules once and kept in the user's cache.

No image and no release archive is downloaded: a Go module proxy is all that a machine must reach. A program's folder is named
after what it is built from, so that a changed version or `go.sum` builds anew and two checkouts share what is equal.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KUBERNETES_VERSION = "1.34.4"  # 1.34 is the last minor whose kubelet still runs under cgroup v1, which containers of CI often have.
KUBE_SOURCE = Path(__file__).parent / "kube"
KUBE_LINKS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusion-operator" / "cluster"
GO_MINIMUM = (1, 24)


@dataclass(frozen=True)
class Program:
    """One binary, and all that its bytes depend on."""

    name: str
    version: str
    package: str
    source: Path | None = None
    """Folder with a `go.mod` of ours; without it the package is built with the dependencies that its own module pins."""
    variables: tuple[tuple[str, str], ...] = ()
    """Strings that the linker sets, as the project's own release does."""

    @property
    def digest(self) -> str:
        """Name what the binary is built from."""
        digest = hashlib.sha256(repr((self.name, self.version, self.package, self.variables)).encode())
        for name in ("go.mod", "go.sum", "main.go") if self.source else ():
            digest.update((self.source / name).read_bytes() if self.source else b"")
        return digest.hexdigest()[:16]

    @property
    def folder(self) -> Path:
        """Where the binary is kept."""
        return CACHE / f"{self.name}-{self.digest}"

    @property
    def path(self) -> Path:
        """The binary, built or not."""
        return self.folder / self.name

    def is_built(self) -> bool:
        """Tell whether the cache holds it; a folder is renamed into place, so it is whole."""
        return self.path.is_file()

    def command(self, target: Path) -> list[str]:
        """Return the `go` command that writes the binary into `target`."""
        settings = " ".join(("-s -w", *(f"-X {name}={value}" for name, value in self.variables)))
        if self.source:
            return ["go", "build", "-trimpath", "-ldflags", settings, "-o", str(target / self.name), self.package]
        return ["go", "install", "-trimpath", "-ldflags", settings, f"{self.package}@v{self.version}"]


def _versioned(package: str, **values: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"{package}.{name}", value) for name, value in values.items())


_MAJOR, _MINOR, _ = KUBERNETES_VERSION.split(".")
KUBE = Program(
    "kube",
    KUBERNETES_VERSION,
    ".",
    source=KUBE_SOURCE,
    variables=_versioned(
        "k8s.io/component-base/version",
        gitVersion=f"v{KUBERNETES_VERSION}",
        gitMajor=_MAJOR,
        gitMinor=_MINOR,
        gitTreeState="clean",
        gitCommit="module",
        buildDate="1970-01-01T00:00:00Z",
    ),
)
HELM = Program(
    "helm",
    "3.19.0",
    "helm.sh/helm/v3/cmd/helm",
    # Without these `helm template` renders for Kubernetes 1.20.
    variables=(
        *_versioned("helm.sh/helm/v3/internal/version", version="v3.19.0"),
        *_versioned("helm.sh/helm/v3/pkg/chartutil", k8sVersionMajor=_MAJOR, k8sVersionMinor=_MINOR),
        *_versioned("helm.sh/helm/v3/pkg/lint/rules", k8sVersionMajor=_MAJOR, k8sVersionMinor=_MINOR),
    ),
)
COREDNS = Program("coredns", "1.12.4", "github.com/coredns/coredns")
KWOK = Program("kwok", "0.7.0", "sigs.k8s.io/kwok/cmd/kwok")
PROGRAMS = (KUBE, HELM, COREDNS, KWOK)


def kubectl() -> Path:
    """Return the path of kubectl, of the cluster's version."""
    return KUBE.folder / "kubectl"


def missing_programs() -> list[Program]:
    """Return what `build_programs` would build."""
    return [program for program in PROGRAMS if not program.is_built()]


def build_programs() -> None:
    """Build what the cache lacks: 15 minutes of two cores and 8 GB of disk at first, of which 400 MB stay.

    A build that was cut off goes on where Go's own cache left it. Of two processes, the second waits for the first.

    Raises:
        subprocess.CalledProcessError: Go could not build; its output says why.
    """
    with _lock(CACHE / "lock"):
        for leftover in CACHE.glob("*.partial*"):  # Of a build that was ended; nobody else builds now.
            shutil.rmtree(leftover, ignore_errors=True)
        missing = missing_programs()
        for program in missing:
            _build(program)
        if missing:
            # Gigabytes that only a new version would want again.
            shutil.rmtree(_go_cache(), ignore_errors=True)


def end_with_input() -> None:
    """End this process's group once its standard input is closed: whoever holds the other end of the pipe has died, however it did."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os.killpg(0, signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _build(program: Program) -> None:
    print(f"cluster: building {program.name} {program.version} from Go modules, some minutes, once", file=sys.stderr, flush=True)
    partial = program.folder.with_suffix(f".partial{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        subprocess.run(
            ["nice", "-n", "10", *program.command(partial)], cwd=program.source or CACHE, env=_go_environment(partial), check=True
        )
        if program is KUBE:
            for link in KUBE_LINKS:
                (partial / link).symlink_to(program.name)
        shutil.rmtree(program.folder, ignore_errors=True)
        partial.rename(program.folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _go_cache() -> Path:
    return CACHE / "go"


def _go_environment(target: Path) -> dict[str, str]:
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOBIN": str(target),
        "GOCACHE": str(_go_cache() / "build"),
        "GOMODCACHE": str(_go_cache() / "modules"),
        "GOFLAGS": "-buildvcs=false -modcacherw",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
