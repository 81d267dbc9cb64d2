"""Builds the images from their Dockerfiles with buildah, as archives that a cluster imports: `python -m images.build --output DIR`.

Where the public base images cannot be pulled, `--base debian` puts a Debian root in their place, which is made once and kept in the user's
cache; `--mounted` then leaves the Python environments out, for whoever runs the images to mount those of this checkout at their own
paths. So tests run the same Dockerfiles that a release is built from.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusion-operator" / "images"
IMAGES = ("operator", "builder", "triton-cpu", "triton-gpu")
DEBIAN = "debian"
SUITE = "bookworm"  # Its Python is 3.11, that of python:3.11-slim-bookworm.
PACKAGES = ("ca-certificates", "libgomp1", "libpython3.11", "libstdc++6", "python3", "python3-pip", "python3-venv", "zlib1g")
OPEN_FOLDERS = ("root",)
"""Folders that every user may enter: a Python that is mounted with `--mounted` may lie below them."""
PROGRAMS = ("buildah", "debootstrap", "runc")
DEFAULT_REGISTRY = "localhost/diffusion-operator"


class ImageError(RuntimeError):
    """An image could not be built; the message says what to do."""


@dataclass(frozen=True)
class ImageOptions:
    """How images are built; unset is what the Dockerfile says."""

    base: str | None = None
    """Image that takes the place of the Dockerfile's base; `debian` is a root that is made here."""
    mounted: bool = False
    """Leave the Python environments out, and put the code where this checkout's environments look for it."""
    registry: str = DEFAULT_REGISTRY
    """What the names of the images begin with."""
    tag: str = "dev"
    """Their tag."""
    arguments: tuple[str, ...] = ()
    """Further build arguments, `NAME=value`."""
    context: Path = REPOSITORY
    """Folder with `images/` and what the Dockerfiles copy: this checkout, or the sources of another release."""

    def name(self, image: str) -> str:
        """Full name of an image, as pods write it."""
        return f"{self.registry}/{image}:{self.tag}"


def build_images(output: Path, options: ImageOptions | None = None, images: Iterable[str] = IMAGES) -> dict[str, Path]:
    """Build images and write each as an OCI archive.

    Args:
        output: Folder for the archives; one of an image that did not change stays as it is.
        options: How they are built.
        images: Which.

    Returns:
        The archive of each image.

    Raises:
        ImageError: A program is missing, or a build failed.
    """
    options = options or ImageOptions()
    require_programs()
    output.mkdir(parents=True, exist_ok=True)
    base = debian_base(REPOSITORY if options.mounted else None) if options.base == DEBIAN else options.base
    return {image: _archive(image, _build(image, base, options), output, options) for image in images}


def debian_base(checkout: Path | None = None) -> str:
    """Return the name of a Debian root, made where this machine has none yet.

    Args:
        checkout: Whose images are built on it, where their paths are those of a checkout. Each gets a root of its own, for buildah takes a
            cached layer for another one that differs only in a path made of a build argument.
    """
    digest = hashlib.sha256(repr((SUITE, PACKAGES, OPEN_FOLDERS)).encode()).hexdigest()[:16]
    mark = f"-{hashlib.sha256(str(checkout).encode()).hexdigest()[:8]}" if checkout else ""
    name = f"localhost/diffusion-operator-base:{digest}{mark}"
    if subprocess.run(["buildah", "inspect", "--type", "image", name], capture_output=True, check=False).returncode == 0:
        return name
    archive = CACHE / f"{SUITE}-{digest}.tar"
    if not archive.is_file():
        _debootstrap(archive)
    container = _run("buildah", "from", "scratch")
    try:
        _run("buildah", "add", container, str(archive), "/")
        _run("buildah", "config", "--label", f"checkout={checkout or ''}", container)
        _run("buildah", "commit", "--quiet", container, name)
    finally:
        _run("buildah", "rm", container)
    return name


def require_programs(*, install: bool = True) -> None:
    """Check that the programs are there, and install their Debian packages where that is possible.

    Raises:
        ImageError: One is missing.
    """
    missing = [program for program in PROGRAMS if not shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")]
    if not missing:
        return
    if install and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", *command], env=environment, stdout=sys.stderr, check=False)
        require_programs(install=False)
        return
    raise ImageError(f"building images needs {', '.join(missing)}; install the Debian packages of these names")


def _debootstrap(archive: Path) -> None:
    print(f"images: making a Debian root in {archive}, once", file=sys.stderr, flush=True)
    root = archive.with_suffix(".root")
    partial = archive.with_suffix(".partial")
    shutil.rmtree(root, ignore_errors=True)
    archive.parent.mkdir(parents=True, exist_ok=True)
    _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root), shown=True)
    for folder in OPEN_FOLDERS:
        (root / folder).chmod(0o755)
    unneeded = [f"--exclude=./{path}" for path in ("var/cache/apt/*", "var/lib/apt/lists/*", "usr/share/doc/*", "usr/share/man/*", "dev/*")]
    _run("tar", "--create", "--file", str(partial), "--numeric-owner", "--directory", str(root), *unneeded, ".")
    partial.rename(archive)
    shutil.rmtree(root)


def _build(image: str, base: str | None, options: ImageOptions) -> str:
    """Build an image and return its id."""
    arguments = [f"BASE={base}"] if base else []
    if options.mounted:
        arguments += ["INSTALL=false", f"PREFIX={REPOSITORY}"]
    flags = [part for argument in (*arguments, *options.arguments) for part in ("--build-arg", argument)]
    # runc and its OCI isolation also work inside a container without CAP_SYS_RESOURCE, where crun and rootless builds do not.
    isolation = ["--runtime", "runc", "--isolation", "oci", "--network", "host", "--layers"]
    file = options.context / "images" / f"{image}.Dockerfile"
    _run("buildah", "build", *isolation, *flags, "--tag", options.name(image), "--file", str(file), str(options.context), shown=True)
    return _run("buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", options.name(image))


def _archive(image: str, identity: str, output: Path, options: ImageOptions) -> Path:
    archive, record = output / f"{image}.tar", output / f"{image}.id"
    known = f"{identity} {options.name(image)}"
    if archive.is_file() and record.is_file() and record.read_text() == known:
        return archive
    archive.unlink(missing_ok=True)
    _run("buildah", "push", "--quiet", options.name(image), f"oci-archive:{archive}:{options.name(image)}")
    record.write_text(known)
    return archive


def _run(*command: str, shown: bool = False) -> str:
    """Run a command and return what it prints; with `shown`, it prints to our standard error instead."""
    output = sys.stderr if shown else subprocess.PIPE
    done = subprocess.run(command, stdout=output, stderr=None if shown else subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise ImageError(f"`{' '.join(command)}` failed with code {done.returncode}{': ' if done.stderr else ''}{done.stderr or ''}")
    return (done.stdout or "").strip()


def main(arguments: list[str] | None = None) -> int:
    """Build images and print their archives, one a line."""
    parser = argparse.ArgumentParser(
        prog="python -m images.build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", default=list(IMAGES), metavar="IMAGE", help=f"of {', '.join(IMAGES)} (default: all)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the archives")
    parser.add_argument("--base", help="image in place of each Dockerfile's base; `debian` makes a Debian root")
    parser.add_argument("--mounted", action="store_true", help="leave the Python environments out, to be mounted from this checkout")
    parser.add_argument("--registry", default=DEFAULT_REGISTRY, help="what the images' names begin with (default: %(default)s)")
    parser.add_argument("--tag", default="dev", help="their tag (default: %(default)s)")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="a further build argument; repeatable")
    options = parser.parse_args(arguments)
    unknown = sorted({*options.images} - {*IMAGES})
    if unknown:
        parser.error(f"no image is called {', '.join(unknown)}; use {', '.join(IMAGES)}")
    chosen = ImageOptions(options.base, options.mounted, options.registry, options.tag, tuple(options.build_arg))
    try:
        for archive in build_images(options.output, chosen, options.images).values():
            print(archive)
    except ImageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
