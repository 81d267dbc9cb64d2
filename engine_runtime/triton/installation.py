"""Finds a tritonserver on this machine and prepares its Python back end for the environment whose packages the models use."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TRITON_VENV = "DIFFUSION_TRITONSERVER_VENV"
SERVE_VENV = "DIFFUSION_SERVE_VENV"
CONTAINER = Path("/opt/tritonserver")


class TritonNotFoundError(RuntimeError):
    """There is no tritonserver, or no environment for its models, on this machine."""


@dataclass(frozen=True)
class TritonInstallation:
    """A tritonserver and what it needs to start."""

    binary: Path
    """The executable."""
    backends: Path
    """Folder with the back ends it came with."""
    stubs: Path | None
    """NVIDIA's wheel only: folder of Python stubs by version, of which one goes into the back end."""
    libraries: tuple[Path, ...] = ()
    """Folders for LD_LIBRARY_PATH."""
    serve_venv: Path | None = None
    """Environment whose packages the models use; None: the interpreter that tritonserver finds itself."""

    def backend_directory(self, work: Path) -> Path:
        """Return the folder for `--backend-directory`, made in `work` where the stub has to be put in."""
        if self.stubs is None:
            return self.backends
        target = work / "backends"
        shutil.copytree(self.backends, target, dirs_exist_ok=True)
        stub = shutil.copy2(self.stubs / _python_version(self.serve_venv) / "triton_python_backend_stub", target / "python")
        Path(stub).chmod(0o755)
        return target

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the server's environment: the stub finds its interpreter by PATH, and ignores PYTHONPATH."""
        environment = dict(base)
        if self.serve_venv is not None:
            environment["PATH"] = f"{self.serve_venv / 'bin'}:{base.get('PATH', os.defpath)}"
        if self.libraries:
            known = [base["LD_LIBRARY_PATH"]] if base.get("LD_LIBRARY_PATH") else []
            environment["LD_LIBRARY_PATH"] = ":".join([*map(str, self.libraries), *known])
        return environment


def find_triton(folder: Path | None = None, environment: Mapping[str, str] = os.environ) -> TritonInstallation:
    """Find a tritonserver.

    Looks at the environment's `DIFFUSION_TRITONSERVER_VENV` and `DIFFUSION_SERVE_VENV`, then `.venv-tritonserver` and `.venv-serve`
    in `folder`, then NVIDIA's container, then PATH.

    Args:
        folder: Where `make serve-env` made its environments; None is the current folder.
        environment: Variables of the process.

    Raises:
        TritonNotFoundError: There is none; the message says how to get one.
    """
    folder = folder or Path.cwd()
    triton_venv = Path(environment.get(TRITON_VENV, folder / ".venv-tritonserver"))
    if triton_venv.is_dir():
        serve_venv = Path(environment.get(SERVE_VENV, folder / ".venv-serve"))
        return _from_wheel(triton_venv.resolve(), serve_venv.absolute())
    found = shutil.which("tritonserver", path=environment.get("PATH"))
    for binary in (CONTAINER / "bin/tritonserver", Path(found) if found else None):
        if binary is not None and binary.is_file():
            return TritonInstallation(binary=binary, backends=binary.parents[1] / "backends", stubs=None)
    raise TritonNotFoundError(
        f"no tritonserver here; run `make serve-env` in the repository, set {TRITON_VENV} to an environment with nvidia-pytriton,"
        " or run inside NVIDIA's Triton container"
    )


def _from_wheel(triton_venv: Path, serve_venv: Path) -> TritonInstallation:
    packages = next(triton_venv.glob("lib/python3.*/site-packages"), triton_venv)
    root = packages / "pytriton/tritonserver"
    if not (root / "bin/tritonserver").is_file():
        raise TritonNotFoundError(f"{triton_venv} holds no tritonserver; run `make serve-env` again, or set {TRITON_VENV} right")
    interpreter = serve_venv / "bin/python3"
    if not interpreter.exists():
        raise TritonNotFoundError(f"{serve_venv} is no Python environment; run `make serve-env`, or set {SERVE_VENV} right")
    return TritonInstallation(
        binary=root / "bin/tritonserver",
        backends=root / "backends",
        stubs=root / "python_backend_stubs",
        libraries=(interpreter.resolve().parents[1] / "lib", packages / "nvidia_pytriton.libs"),
        serve_venv=serve_venv,
    )


def _python_version(venv: Path | None) -> str:
    folders = sorted(venv.glob("lib/python3.*")) if venv else []
    return folders[0].name.removeprefix("python") if folders else f"{sys.version_info.major}.{sys.version_info.minor}"
