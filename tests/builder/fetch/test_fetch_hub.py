from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from diffusion_api.model_spec import ModelSource
from engine_builder.errors import InvalidJobError, InvalidModelError, TransientError
from engine_builder.fetch import check_tensor_files, fetch_checkpoint, fetch_files, resolve_revision, transfer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
URL = f"/lab/digits/resolve/{COMMIT}/{WEIGHTS}"
SOURCE = ModelSource(uri="hf://lab/digits")


@pytest.fixture(autouse=True)
def hub(server: Any, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A hub with one repository; the client's own token and cache are out of reach."""
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    server.hub(checkpoint, "lab/digits", COMMIT)
    return server


def test_a_moving_name_becomes_a_commit_and_nothing_is_downloaded_for_it(hub: Any) -> None:
    assert resolve_revision(SOURCE) == COMMIT
    assert resolve_revision(SOURCE.model_copy(update={"revision": "main"})) == COMMIT
    assert not [path for _, path, _ in hub.log if "/resolve/" in path]


def test_a_pinned_commit_needs_no_network(hub: Any) -> None:
    assert resolve_revision(SOURCE.model_copy(update={"revision": COMMIT})) == COMMIT
    assert hub.log == []


def test_wanted_files_come_verified_and_the_clients_traces_go(hub: Any, checkpoint: Path, tmp_path: Path) -> None:
    fetched = fetch_checkpoint(SOURCE, tmp_path / "here")
    check_tensor_files(fetched.folder)
    assert (fetched.revision, fetched.licence) == (COMMIT, "apache-2.0")
    assert (fetched.folder / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()
    here = {path.relative_to(fetched.folder).as_posix() for path in fetched.folder.rglob("*") if path.is_file()}
    assert here == {*fetched.files, "checksums.json"}
    assert not [path for _, path, _ in hub.log if path.endswith((".py", ".onnx", ".bin", "fp16.safetensors", "all-in-one.safetensors"))]


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(hub: Any, checkpoint: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**18)
    hub.cut_after[URL] = [2**20]
    fetched = fetch_checkpoint(SOURCE, tmp_path / "here")
    first, second = hub.gets(URL)
    assert first is None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= 2**20
    assert (fetched.folder / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()


@pytest.mark.parametrize("file", [WEIGHTS, "vae/config.json"])
def test_a_file_with_another_checksum_is_never_taken(hub: Any, tmp_path: Path, file: str) -> None:
    url = f"/lab/digits/resolve/{COMMIT}/{file}"
    hub.files[url] = hub.files[url][:-1] + b"?"
    with pytest.raises(InvalidModelError, match=rf"{file} came 2 times and each time its (SHA-256|git blob) is"):
        fetch_checkpoint(SOURCE, tmp_path / "here")
    assert not (tmp_path / "here" / file).exists()


def test_a_private_repository_opens_with_the_secrets_token(hub: Any, tmp_path: Path) -> None:
    hub.authorization, hub.challenge = "Bearer hf_secret", None
    hub.headers_of["401"] = {"X-Error-Code": "RepoNotFound"}
    with pytest.raises(InvalidJobError, match=r"does not exist, or is private: .* name a Secret with the key `token`"):
        resolve_revision(SOURCE)
    assert fetch_checkpoint(SOURCE, tmp_path / "here", credentials={"token": "hf_secret\n"}).revision == COMMIT


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("GatedRepo", "is gated: accept its licence on the model's page .* under the key `token`"),
        ("RepoNotFound", "does not exist, or is private"),
        ("RevisionNotFound", r"has no revision v9; model\.revision takes a branch, a tag or a commit"),
    ],
)
def test_a_refusal_says_what_to_do(hub: Any, code: str, message: str) -> None:
    hub.files.clear()
    hub.headers_of["404"] = {"X-Error-Code": code}
    with pytest.raises(InvalidJobError, match=message):
        resolve_revision(SOURCE.model_copy(update={"revision": "v9"}))


def test_errors_of_the_hub_are_tried_again_and_then_reported_as_passing(hub: Any) -> None:
    api = "/api/models/lab/digits"
    hub.statuses[api] = [503, 502]
    assert resolve_revision(SOURCE) == COMMIT
    hub.statuses[api] = [503] * transfer.ATTEMPTS
    with pytest.raises(TransientError, match="the hub answers 503"):
        resolve_revision(SOURCE)


def test_a_hub_that_is_not_there_is_a_passing_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TransientError, match="cannot be reached"):
        resolve_revision(SOURCE)


def test_offline_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidJobError, match="while HF_HUB_OFFLINE is set"):
        resolve_revision(SOURCE)


def test_a_name_that_the_hub_cannot_have_is_refused() -> None:
    with pytest.raises(InvalidJobError, match="is not hf://owner/name"):
        resolve_revision(ModelSource(uri="hf://lab/digits--x..y"))


def test_a_students_file_or_folder_may_lie_inside_a_repository(hub: Any, checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "0005000.pth").write_bytes(b"weights")
    hub.hub(checkpoint, "lab/digits", COMMIT)
    path, revision = fetch_files(ModelSource(uri="hf://lab/digits/0005000.pth"), tmp_path / "file")
    assert (path.read_bytes(), revision) == (b"weights", COMMIT)
    folder, _ = fetch_files(ModelSource(uri="hf://lab/digits/vae"), tmp_path / "folder")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
