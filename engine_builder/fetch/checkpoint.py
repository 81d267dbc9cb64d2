"""The way in: which revision a source is at, and its wanted files, here and verified."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusion_api.model_spec import ModelSource
from engine_builder.errors import InvalidJobError, InvalidModelError
from engine_builder.fetch.archives import ARCHIVE_SUFFIXES, unpack_checkpoint
from engine_builder.fetch.http import redacted
from engine_builder.fetch.local import LocalSource, path_of_file_uri, path_of_pvc_uri
from engine_builder.fetch.selection import MODEL_INDEX, checkpoint_files, parse_model_index
from engine_builder.fetch.source import RemoteFile, Source, check_pin, content_revision
from engine_builder.fetch.transfer import HUB_WORK_FOLDER, Progress, bring, require_space_for
from engine_builder.store import FileSum
from engine_builder.store.checksums import measure, write_checksums


@dataclass(frozen=True)
class FetchedCheckpoint:
    """A checkpoint that is here."""

    folder: Path
    """The diffusers folder; its files may be links, do not write to it."""
    revision: str
    """Commit or digest."""
    files: Mapping[str, FileSum]
    """Size and SHA-256 of each file by relative path."""
    licence: str
    """Name or first line of its licence, or an empty string."""


def source_of(uri: str, revision: str | None, *, base_folder: Path, credentials: Mapping[str, str]) -> Source:
    """Return where a URI points to; clients are imported when they are needed.

    Raises:
        InvalidJobError: There is no such scheme or path.
    """
    match uri.partition(":")[0]:
        case "file":
            return LocalSource(path_of_file_uri(uri, base_folder), uri)
        case "pvc":
            return LocalSource(path_of_pvc_uri(uri), uri)
        case "hf":
            from engine_builder.fetch.hub import HubSource  # noqa: PLC0415

            return HubSource(uri, revision, credentials)
        case "s3":
            from engine_builder.fetch.s3 import S3Source  # noqa: PLC0415

            return S3Source(uri, credentials)
        case "https" | "http":
            from engine_builder.fetch.web import WebSource  # noqa: PLC0415

            return WebSource(uri, credentials, revision)
        case "oci":
            from engine_builder.fetch.oci import OciSource  # noqa: PLC0415

            return OciSource(uri, revision, credentials)
    raise InvalidJobError(f"{uri}: no such scheme; use file, hf, https, oci, pvc or s3")


def resolve_revision(source: ModelSource, *, base_folder: Path | None = None, credentials: Mapping[str, str] | None = None) -> str:
    """Return the commit or digest that a source is at, downloading no weights.

    `hf://` gives the commit, `oci://` the manifest's digest; a pinned one of these, or a file of `https://` pinned by its SHA-256, needs
    no network. `s3://` and `https://` give a digest of names, sizes and checksums, ETags or dates, or of the bytes where a server dates
    nothing; `file://` and `pvc://` one of the bytes, which reads them, so that equal checkpoints share an engine wherever they lie.

    Args:
        source: The checkpoint, or a student's weights put in its place.
        base_folder: What relative `file://` paths start from; the working directory if unset.
        credentials: Keys and values of the secret.

    Raises:
        InvalidJobError: It does not exist, is refused, or is not at its pinned revision.
        TransientError: It cannot be reached now.
    """
    place = source_of(source.uri, source.revision, base_folder=base_folder or Path.cwd(), credentials=credentials or {})
    return _revision(place, source, None)


def fetch_checkpoint(
    source: ModelSource,
    destination: Path,
    *,
    base_folder: Path | None = None,
    credentials: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> FetchedCheckpoint:
    """Bring the wanted files of a checkpoint into a folder, going on where an earlier call was cut off.

    Args:
        source: The checkpoint.
        destination: Folder, which may hold what an earlier call of the same source and revision brought. `checksums.json` is written.
        base_folder: What relative `file://` paths start from; the working directory if unset.
        credentials: Keys and values of the secret that the job names.
        progress: Told bytes done and bytes in all.

    Raises:
        InvalidJobError: The source does not exist, refuses, or is not at its pinned revision.
        InvalidModelError: It is no diffusers folder, or is damaged at its source.
        UnsafeModelError: It holds code or pickles, which were not brought.
        TransientError: The network or the disk; call again.
    """
    place = source_of(source.uri, source.revision, base_folder=base_folder or Path.cwd(), credentials=credentials or {})
    files = _wanted(place)
    revision = _revision(place, source, files)
    sums = _brought(place, files, destination, progress)
    if len(files) == 1 and files[0].path.endswith(ARCHIVE_SUFFIXES):
        unpack_checkpoint(destination / files[0].path, destination)
        (destination / files[0].path).unlink()
        sums = measure(destination)
    if MODEL_INDEX not in sums:
        raise InvalidModelError(f"{redacted(source.uri)} has no {MODEL_INDEX}: it is not a diffusers folder; save it with save_pretrained")
    write_checksums(destination, sums)
    return FetchedCheckpoint(destination, revision, sums, place.licence() or licence_of(destination))


def fetch_files(
    source: ModelSource, destination: Path, *, base_folder: Path | None = None, credentials: Mapping[str, str] | None = None
) -> tuple[Path, str]:
    """Bring a student's weights, one file or a folder, as they are; nothing is loaded.

    Returns:
        The file, or the folder where there are several, and the revision.

    Raises:
        BuildError: As `fetch_checkpoint`.
    """
    place = source_of(source.uri, source.revision, base_folder=base_folder or Path.cwd(), credentials=credentials or {})
    files = _wanted(place)
    revision = _revision(place, source, files)
    _brought(place, files, destination, None)
    return (destination / files[0].path if len(files) == 1 else destination), revision


def licence_of(folder: Path) -> str:
    """Return what the model card's front matter calls the licence, else the first line of the licence's text, else nothing."""
    card = folder / "README.md"
    if card.is_file() and (match := re.search(r"\A---\n(?:.*\n)*?license:\s*(\S+)", card.read_text(errors="replace"))):
        return match[1]
    texts = sorted(path for path in folder.glob("LICEN[CS]E*") if path.is_file())
    lines = [line.strip() for path in texts for line in path.read_text(errors="replace").splitlines()]
    return next((line for line in lines if line), "")


def _revision(place: Source, source: ModelSource, files: tuple[RemoteFile, ...] | None) -> str:
    own = place.revision()
    return own if own is not None else check_pin(source.uri, source.revision, content_revision(files or _wanted(place)))


def _brought(place: Source, files: tuple[RemoteFile, ...], destination: Path, progress: Progress | None) -> dict[str, FileSum]:
    require_space_for(() if isinstance(place, LocalSource) else files, destination)
    destination.mkdir(parents=True, exist_ok=True)
    sums = bring(place, files, destination, progress)
    for leftovers in list(destination.rglob(HUB_WORK_FOLDER)):
        shutil.rmtree(leftovers)
    for other_version in list(destination.rglob("*.part")):
        other_version.unlink()
    return sums


def _wanted(place: Source) -> tuple[RemoteFile, ...]:
    files = {file.path: file for file in place.files()}
    if not files:
        raise InvalidJobError("the source holds no files; check model.uri")
    if MODEL_INDEX not in files:
        return place.detailed(tuple(files.values()))  # One file, or a student's folder.
    index = parse_model_index(place.read(MODEL_INDEX))
    return place.detailed([files[path] for path in checkpoint_files(files, index)])
