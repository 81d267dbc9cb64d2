from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from diffusion_api.model_spec import ModelSource
from engine_builder.errors import InvalidJobError, InvalidModelError, TransientError
from engine_builder.fetch import check_tensor_files, fetch_checkpoint, resolve_revision, transfer
from engine_builder.store import digest_of_file

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def source(server: Any, checkpoint: Path) -> ModelSource:
    server.registry(checkpoint, "lab/digits", "v1")
    return ModelSource(uri=f"oci://{server.url.removeprefix('http://')}/lab/digits:v1")


def blob(checkpoint: Path, file: str = WEIGHTS) -> str:
    return f"/v2/lab/digits/blobs/sha256:{digest_of_file(checkpoint / file)}"


def test_a_tag_becomes_the_manifests_digest(server: Any, checkpoint: Path, source: ModelSource) -> None:
    digest = server.registry(checkpoint, "lab/digits", "v1")
    assert resolve_revision(source) == digest
    server.log.clear()
    assert resolve_revision(source.model_copy(update={"revision": digest})) == digest
    assert server.log == []


def test_wanted_layers_come_by_their_titles(checkpoint: Path, source: ModelSource, tmp_path: Path) -> None:
    fetched = fetch_checkpoint(source, tmp_path / "here")
    check_tensor_files(fetched.folder)
    assert (fetched.folder / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()
    assert fetched.licence == "Apache-2.0"
    assert "demo.py" not in fetched.files


def test_a_blob_that_is_cut_off_goes_on_where_it_stopped(server: Any, checkpoint: Path, source: ModelSource, tmp_path: Path) -> None:
    server.cut_after[blob(checkpoint)] = [2**20]
    fetched = fetch_checkpoint(source, tmp_path / "here")
    assert server.gets(blob(checkpoint)) == [None, "bytes=1048576-"]
    assert (fetched.folder / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()


def test_a_blob_that_is_not_its_digest_is_refused(server: Any, checkpoint: Path, source: ModelSource, tmp_path: Path) -> None:
    server.files[blob(checkpoint)] = server.files[blob(checkpoint)][:-1] + b"?"
    with pytest.raises(InvalidModelError, match=rf"{WEIGHTS} came 2 times and each time its SHA-256"):
        fetch_checkpoint(source, tmp_path / "here")


def test_a_manifest_that_is_not_its_digest_is_refused(server: Any, checkpoint: Path, source: ModelSource, tmp_path: Path) -> None:
    digest = server.registry(checkpoint, "lab/digits", "v1")
    server.files[f"/v2/lab/digits/manifests/{digest}"] += b" "
    with pytest.raises(InvalidModelError, match=f"the registry's manifest is not {digest}"):
        fetch_checkpoint(source.model_copy(update={"revision": digest}), tmp_path / "here")


def docker_config(source: ModelSource, user: str, password: str) -> dict[str, str]:
    host = source.uri.removeprefix("oci://").partition("/")[0]
    return {".dockerconfigjson": json.dumps({"auths": {f"https://{host}": {"auth": b64encode(f"{user}:{password}".encode()).decode()}}})}


def test_a_registry_opens_with_a_pull_secret_or_a_password(server: Any, source: ModelSource) -> None:
    server.authorization = f"Basic {b64encode(b'u:p').decode()}"
    for refused in ({}, docker_config(source, "u", "wrong")):
        with pytest.raises(InvalidJobError, match=r"access is refused \(401\); name a Secret"):
            resolve_revision(source, credentials=refused)
    assert resolve_revision(source, credentials={"username": "u", "password": "p"})
    assert resolve_revision(source, credentials=docker_config(source, "u", "p"))


def test_a_registry_that_gives_tokens_gives_one(server: Any, source: ModelSource) -> None:
    server.authorization = "Bearer abc"
    server.challenge = f'Bearer realm="{server.url}/token",service="registry",scope="repository:lab/digits:pull"'
    server.files["/token"] = b'{"token": "abc"}'
    assert resolve_revision(source, credentials={"username": "u", "password": "p"})
    server.files["/token"] = b'{"token": "stale"}'
    with pytest.raises(InvalidJobError, match=r"access is refused \(401\)"):
        resolve_revision(source)


def test_a_pull_secret_that_is_not_one_is_said(source: ModelSource) -> None:
    with pytest.raises(InvalidJobError, match=r"\.dockerconfigjson cannot be read"):
        resolve_revision(source, credentials={".dockerconfigjson": "{"})


def test_a_tag_that_is_not_there_is_refused(source: ModelSource) -> None:
    with pytest.raises(InvalidJobError, match=r"does not exist \(404\); check model\.uri and model\.revision"):
        resolve_revision(source.model_copy(update={"revision": "v2"}))


def test_a_registry_in_trouble_is_tried_again_and_then_reported_as_passing(server: Any, source: ModelSource) -> None:
    server.statuses["/v2/lab/digits/manifests/v1"] = [503]
    assert resolve_revision(source)
    server.statuses["/v2/lab/digits/manifests/v1"] = [503] * transfer.ATTEMPTS
    with pytest.raises(TransientError, match="the server answers 503"):
        resolve_revision(source)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"manifests": []}, "is an index of several images"),
        (
            {"layers": [{"annotations": {"org.opencontainers.image.title": "m", "io.deis.oras.content.unpack": "true"}}]},
            "m was pushed as a packed",
        ),
        ({"layers": [{"digest": "md5:00", "size": 1, "annotations": {"org.opencontainers.image.title": "m"}}]}, "is not a SHA-256 digest"),
        ({"layers": []}, "holds no files"),
    ],
)
def test_other_artifacts_are_refused_in_words(
    server: Any, source: ModelSource, tmp_path: Path, manifest: dict[str, Any], message: str
) -> None:
    server.put_manifest("lab/digits", "v1", manifest)
    with pytest.raises((InvalidModelError, InvalidJobError), match=message):
        fetch_checkpoint(source, tmp_path / "here")


def test_a_title_that_climbs_out_of_the_folder_is_refused(server: Any, checkpoint: Path, source: ModelSource, tmp_path: Path) -> None:
    manifest = json.loads(server.files["/v2/lab/digits/manifests/v1"])
    manifest["layers"][0]["annotations"]["org.opencontainers.image.title"] = "vae/../../evil.json"
    server.put_manifest("lab/digits", "v1", {"layers": manifest["layers"]})
    with pytest.raises(InvalidModelError, match="names a file outside its folder"):
        fetch_checkpoint(source, tmp_path / "here")
