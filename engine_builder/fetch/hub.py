"""Checkpoints of a Hugging Face hub: `hf://owner/name`, or `hf://owner/name/path/in/it` for a student's weights."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars

from engine_builder.errors import InvalidJobError, TransientError
from engine_builder.fetch.source import OnBytes, RemoteFile, first_of
from engine_builder.fetch.transfer import HUB_WORK_FOLDER, retried

COMMIT = re.compile(r"[0-9a-f]{40}")


class HubSource:
    """A repository at one revision; `HF_ENDPOINT` names another hub than huggingface.co."""

    def __init__(self, uri: str, revision: str | None, credentials: Mapping[str, str]) -> None:
        parts = uri.removeprefix("hf://").strip("/").split("/")
        if len(parts) < 2:
            raise InvalidJobError(f"{uri} is not hf://owner/name")
        self._uri, self._name, self._inside = uri, "/".join(parts[:2]), "/".join(parts[2:])
        self._wanted = revision
        self._token = first_of(credentials, "token", "HF_TOKEN")
        self._endpoint = os.environ.get("HF_ENDPOINT")

    def revision(self) -> str:
        """Return the commit; a pinned one needs no network."""
        return self._wanted if self._wanted and COMMIT.fullmatch(self._wanted) else str(self._info.sha)

    def files(self) -> tuple[RemoteFile, ...]:
        """List the commit's files."""
        siblings = ((self._relative(sibling.rfilename), sibling) for sibling in self._info.siblings or ())
        return tuple(_remote_file(path, sibling) for path, sibling in siblings if path is not None)

    def detailed(self, files: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
        """Return the files: the listing says all."""
        return tuple(files)

    def read(self, path: str) -> bytes:
        """Return a small file."""
        return retried(lambda: self._read(path))

    def fetch(self, file: RemoteFile, part: Path, on_bytes: OnBytes) -> None:
        """Download through the hub's client, which resumes in its own folder beside the file."""
        work = part.with_name(HUB_WORK_FOLDER)
        disable_progress_bars()
        with self._translated():
            brought = hf_hub_download(self._name, self._full(file.path), revision=self.revision(), local_dir=work, **self._access)
        Path(brought).rename(part)
        on_bytes(part.stat().st_size)

    def licence(self) -> str:
        """Return the licence of the model card."""
        return str(getattr(self._info.card_data, "license", None) or "")

    def _read(self, path: str) -> bytes:
        with self._translated(), TemporaryDirectory() as work:  # Not the hub's cache: a pod's home folder is read-only.
            brought = hf_hub_download(self._name, self._full(path), revision=self.revision(), local_dir=work, **self._access)
            return Path(brought).read_bytes()

    @cached_property
    def _info(self) -> Any:
        return retried(self._ask)

    def _ask(self) -> Any:
        with self._translated():
            return HfApi(endpoint=self._endpoint, token=self._token).model_info(self._name, revision=self._wanted, files_metadata=True)

    @property
    def _access(self) -> dict[str, Any]:
        return {"token": self._token, "endpoint": self._endpoint}

    def _full(self, path: str) -> str:
        if not self._inside or self._inside.endswith(f"/{path}") or self._inside == path:
            return self._inside or path
        return f"{self._inside}/{path}"

    def _relative(self, path: str) -> str | None:
        if not self._inside:
            return path
        if path == self._inside:
            return path.rpartition("/")[2]
        return path.removeprefix(f"{self._inside}/") if path.startswith(f"{self._inside}/") else None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except GatedRepoError as error:
            raise InvalidJobError(
                f"{self._uri} is gated: accept its licence on the model's page with your account, and put that account's token into the "
                "Secret that model.secretName names, under the key `token`"
            ) from error
        except RepositoryNotFoundError as error:
            raise InvalidJobError(
                f"{self._uri} does not exist, or is private: check its name, and for a private one name a Secret with the key `token` "
                "in model.secretName"
            ) from error
        except RevisionNotFoundError as error:
            raise InvalidJobError(
                f"{self._uri} has no revision {self._wanted}; model.revision takes a branch, a tag or a commit"
            ) from error
        except HFValidationError as error:
            raise InvalidJobError(f"{self._uri} is not hf://owner/name: {error}") from error
        except OfflineModeIsEnabled as error:
            raise InvalidJobError(f"{self._uri} cannot be reached while HF_HUB_OFFLINE is set; unset it, or use file://") from error
        except RemoteEntryNotFoundError as error:
            raise InvalidJobError(f"{self._uri}: {error}") from error
        except HfHubHTTPError as error:
            raise _refusal(self._uri, error) from error
        except (LocalEntryNotFoundError, HTTPError, TimeoutError, ConnectionError) as error:
            raise TransientError(f"{self._uri} cannot be reached: {error}") from error


def _refusal(uri: str, error: Any) -> InvalidJobError | TransientError:
    status = error.response.status_code if error.response is not None else 0
    if status in (401, 403):
        return InvalidJobError(f"{uri}: the hub refuses ({status}); put a valid token into model.secretName under the key `token`")
    if status in (408, 429) or status >= 500 or status == 0:
        return TransientError(f"{uri}: the hub answers {status}; it may be better later")
    return InvalidJobError(f"{uri}: the hub answers {status}: {error}")


def _remote_file(path: str, sibling: Any) -> RemoteFile:
    if sibling.lfs is not None:
        return RemoteFile(path, sibling.lfs.size, sha256=sibling.lfs.sha256)
    return RemoteFile(path, sibling.size, git_blob=sibling.blob_id)
