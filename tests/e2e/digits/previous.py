"""The release before this one: its chart, and its operator's sources, from which its image is built on what this checkout has installed."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

from images.build import REPOSITORY, ImageOptions
from tests.e2e.digits.installation import OPTIONS

VERSION = "0.1.0"
_ARCHIVES = Path(__file__).parent / "charts"
CHART = _ARCHIVES / f"diffusion-operator-{VERSION}.tgz"
SOURCES = _ARCHIVES / f"operator-{VERSION}.tar.xz"
"""`git archive` of `diffusion_api` and `operator`: a shallow clone has no commit to take them from."""
OF_TODAY = ("images/operator.Dockerfile", "images/install.sh", "requirements/operator.txt", "pyproject.toml", "README.md", "LICENSE")
"""What the image needs besides, which tells nothing of a release."""


def options(folder: Path) -> ImageOptions:
    """Return how the image of that release is built; writes its sources into `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tarfile.open(SOURCES) as archive:
        archive.extractall(folder, filter="data")
    for name in OF_TODAY:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name)
    return replace(OPTIONS, tag=VERSION, context=folder)
