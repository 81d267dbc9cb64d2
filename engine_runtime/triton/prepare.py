"""`python -m engine_runtime.triton.prepare`: the container that runs before Triton in a serving pod.

Where the store is a bucket (DIFFUSION_STORE_URI=s3://bucket/prefix), it brings the engine from there into the store's folder first.
It checks that the engine's files are whole, and that this image and this node's GPU are those it was compiled for, before Triton spends
minutes on loading; then it links the engine's repository into a folder of the pod, with the deployment's own batching.
What went wrong is one sentence in the termination log, and one code of `diffusion_api.prepare_exit`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from pydantic import ValidationError

from diffusion_api.engine_manifest import EngineManifest, Executor, Piece
from diffusion_api.environment import STORE_URI_VARIABLE
from diffusion_api.prepare_exit import PrepareExit
from diffusion_api.serving import Serving
from engine_runtime.checksums import damage
from engine_runtime.errors import EngineFilesError
from engine_runtime.nvidia import LIBRARIES, LIBRARY_NAMES, NoGpuError, first_gpu, library_version
from engine_runtime.repository import load_manifest
from engine_runtime.sigterm import end_on_sigterm
from engine_runtime.triton.config import PIPELINE
from engine_runtime.triton.repository import REPOSITORY_FOLDER, VERSION, link_model_repository

TERMINATION_LOG = Path("/dev/termination-log")
HASHED_FILE_MIB = 256


class PrepareError(Exception):
    """Why this pod cannot serve this engine, in one sentence."""

    def __init__(self, exit_code: PrepareExit, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def main(arguments: list[str] | None = None) -> int:
    """Prepare an engine and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        hashed_bytes = None if options.verify_checksums else HASHED_FILE_MIB * 2**20
        uri = os.environ.get(STORE_URI_VARIABLE)
        prepare(options.engine, options.models, options.serving, options.compute_capability, hashed_bytes=hashed_bytes, store_uri=uri)
    except PrepareError as error:
        sentence = " ".join(str(error).split())
        print(sentence, file=sys.stderr, flush=True)
        if options.termination_log.exists():
            options.termination_log.write_text(sentence, encoding="utf-8")
        return error.exit_code
    print(f"{options.engine} is whole and fits; its models are in {options.models}", flush=True)
    return 0


def prepare(
    engine: Path,
    models: Path,
    serving_json: str,
    compute_capability: str | None,
    *,
    hashed_bytes: int | None,
    store_uri: str | None = None,
) -> None:
    """Check an engine and link its repository.

    Args:
        engine: The engine's folder in the store.
        models: Folder that Triton serves.
        serving_json: Serving settings, in wire form.
        compute_capability: Of the GPU that the deployment asks for; None on the CPU.
        hashed_bytes: Files of at most this size are hashed, larger ones compared by size; None: all are hashed.
        store_uri: Bucket of which the store is a copy; None: the store is all there is.

    Raises:
        PrepareError: See `PrepareExit`.
    """
    serving = _serving(serving_json)
    try:
        if store_uri:
            bring(engine, store_uri, hashed_bytes)
        require_whole(engine, hashed_bytes)
        manifest = _manifest(engine / REPOSITORY_FOLDER)
        require_fit(manifest, compute_capability)
        link_model_repository(engine / REPOSITORY_FOLDER, models, serving)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        said = f"{place}{error.strerror or error}; the engine cannot be prepared now, and this is tried again"
        raise PrepareError(PrepareExit.TRANSIENT, said) from error


def bring(engine: Path, store_uri: str, hashed_bytes: int | None) -> None:
    """Have a whole copy of an engine that lies in a bucket; one that a restarted container finds is used.

    Raises:
        PrepareError: It is not in the bucket or damaged there, or the bucket cannot be read.
        OSError: The folder cannot be written.
    """
    if engine.is_dir():
        if not damage(engine, hashed_bytes=hashed_bytes):
            return
        shutil.rmtree(engine)
    try:
        from engine_runtime.bucket import ArtifactDamagedError, ArtifactMissingError, Bucket, BucketError  # noqa: PLC0415  # Needs boto3.
    except ModuleNotFoundError as error:
        said = f"the engine lies in {store_uri}, and this image has no {error.name}; are operator and image of one release?"
        raise PrepareError(PrepareExit.USAGE, said) from None
    print(f"bringing {engine.name} from {store_uri}", flush=True)
    engine.parent.mkdir(parents=True, exist_ok=True)
    try:
        Bucket(store_uri).download(engine.name, engine)
    except ArtifactMissingError:
        raise PrepareError(PrepareExit.FILES_MISSING, f"{engine.name} is not in {store_uri}") from None
    except ArtifactDamagedError as error:
        raise PrepareError(PrepareExit.FILES_MISSING, str(error)) from error
    except BucketError as error:  # Also one that refuses: the container is started again, and heals when rights or settings are mended.
        raise PrepareError(PrepareExit.TRANSIENT, str(error)) from error


def require_whole(engine: Path, hashed_bytes: int | None) -> None:
    """Check an engine's files against their checksums.

    Raises:
        PrepareError: A file is missing or changed, or the engine is not there.
    """
    if not engine.is_dir():
        raise PrepareError(PrepareExit.FILES_MISSING, f"{engine} is not in the engine store")
    problems = damage(engine, hashed_bytes=hashed_bytes)
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise PrepareError(PrepareExit.FILES_MISSING, f"{engine} is damaged: {'; '.join(problems[:3])}{more}")


def require_fit(manifest: EngineManifest, compute_capability: str | None) -> None:
    """Check that this image runs an engine's pieces, and that the GPU is the one they were compiled for.

    Raises:
        PrepareError: It does not, or it is not.
    """
    plans = [piece for piece in manifest.pieces.values() if piece.executor is Executor.TENSORRT]
    for library, version in sorted({(piece.options.get("library", "tensorrt"), piece.options.get("version", "")) for piece in plans}):
        _require_library(library, version)
    if plans:
        _require_gpu({*_capabilities(plans), *([compute_capability] if compute_capability else [])})
    if any(piece.executor is Executor.OPENVINO for piece in manifest.pieces.values()):
        _require_openvino()


def _require_library(library: str, built_with: str) -> None:
    if library not in LIBRARIES:
        raise PrepareError(PrepareExit.MISMATCH, f"the engine was compiled by {library}, which this image does not know")
    name, found = LIBRARY_NAMES[library], library_version(library, built_with.partition(".")[0])
    if found is None:
        raise PrepareError(PrepareExit.MISMATCH, f"the engine was compiled by {name} {built_with}, and this image has no {name}")
    if built_with and found != built_with:
        raise PrepareError(
            PrepareExit.MISMATCH,
            f"the engine was compiled by {name} {built_with}, and this image has {found}; a plan loads in its own version alone",
        )


def _require_gpu(wanted: set[str]) -> None:
    if not wanted:
        return
    words = " and ".join(sorted(wanted))
    try:
        gpu = first_gpu()
    except NoGpuError as error:
        raise PrepareError(PrepareExit.MISMATCH, f"the engine needs a GPU of compute capability {words}, and there is {error}") from None
    if wanted != {gpu.compute_capability}:
        raise PrepareError(
            PrepareExit.MISMATCH,
            f"the engine needs a GPU of compute capability {words}, and this node's {gpu.name} has {gpu.compute_capability}",
        )


def _require_openvino() -> None:
    if find_spec("openvino") is None:  # Not imported: that takes a second at every start of a pod.
        raise PrepareError(PrepareExit.MISMATCH, "the engine was compiled by OpenVINO, and this image has no OpenVINO")


def _capabilities(plans: Iterable[Piece]) -> set[str]:
    return {piece.options["computeCapability"] for piece in plans if "computeCapability" in piece.options}


def _manifest(repository: Path) -> EngineManifest:
    try:
        return load_manifest(repository / PIPELINE / VERSION)
    except EngineFilesError as error:  # Its file is whole: it was written by another release.
        raise PrepareError(PrepareExit.MISMATCH, f"the engine was built by another release than this image: {error}") from error


def _serving(text: str) -> Serving:
    try:
        return Serving.model_validate(json.loads(text))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise PrepareError(PrepareExit.USAGE, f"--serving: {problems}; are operator and image of one release?") from None
    except ValueError as error:
        raise PrepareError(PrepareExit.USAGE, f"--serving is no JSON: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m engine_runtime.triton.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", type=Path, required=True, help="folder of the engine in the store")
    parser.add_argument("--models", type=Path, required=True, help="folder that Triton serves")
    parser.add_argument("--serving", required=True, help="spec.serving of the deployment, as JSON")
    parser.add_argument("--compute-capability", help="of the GPU that the deployment asks for, for example 10.0")
    parser.add_argument("--verify-checksums", action="store_true", help=f"hash files above {HASHED_FILE_MIB} MiB too")
    parser.add_argument("--termination-log", type=Path, default=TERMINATION_LOG, help="file that gets the reason, where it exists")
    return parser


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
