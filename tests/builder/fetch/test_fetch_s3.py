from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from diffusion_api.model_spec import ModelSource
from engine_builder.errors import InvalidJobError, InvalidModelError, TransientError
from engine_builder.fetch import check_tensor_files, fetch_checkpoint, fetch_files, resolve_revision
from engine_builder.fetch.s3 import S3Source
from engine_builder.store.digests import files_below

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
SOURCE = ModelSource(uri="s3://models/digits")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(endpoint: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket with the checkpoint."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    client = boto3.client("s3", aws_access_key_id="key", aws_secret_access_key="secret", region_name="us-east-1")
    client.create_bucket(Bucket="models")
    for path in files_below(checkpoint):
        client.put_object(Bucket="models", Key=f"digits/{path.relative_to(checkpoint)}", Body=path.read_bytes())
    yield client
    for entry in client.list_objects_v2(Bucket="models").get("Contents", []):
        client.delete_object(Bucket="models", Key=entry["Key"])
    client.delete_bucket(Bucket="models")


@pytest.mark.usefixtures("client")
def test_wanted_objects_come_verified(checkpoint: Path, tmp_path: Path) -> None:
    fetched = fetch_checkpoint(SOURCE, tmp_path / "here", credentials=CREDENTIALS)
    check_tensor_files(fetched.folder)
    assert fetched.revision == resolve_revision(SOURCE, credentials=CREDENTIALS)
    assert (fetched.folder / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()
    assert "demo.py" not in fetched.files
    assert fetched.licence == "apache-2.0"


def test_a_changed_object_is_another_revision(client: Any) -> None:
    before = resolve_revision(SOURCE, credentials=CREDENTIALS)
    client.put_object(Bucket="models", Key="digits/vae/config.json", Body=b"{}")
    assert resolve_revision(SOURCE, credentials=CREDENTIALS) != before


def test_the_rest_is_read_from_where_an_earlier_call_stopped(client: Any, checkpoint: Path, tmp_path: Path) -> None:
    place = S3Source(SOURCE.uri, CREDENTIALS)
    (file,) = [file for file in place.files() if file.path == WEIGHTS]
    (tmp_path / "part").write_bytes((checkpoint / WEIGHTS).read_bytes()[: 2**20])
    counts: list[int] = []
    place.fetch(file, tmp_path / "part", counts.append)
    assert (tmp_path / "part").read_bytes() == (checkpoint / WEIGHTS).read_bytes()
    assert sum(counts) == (checkpoint / WEIGHTS).stat().st_size - 2**20


def test_an_object_with_another_md5_is_never_taken(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = S3Source.fetch

    def damaged(self: S3Source, file: Any, part: Path, on_bytes: Any) -> None:
        read(self, file, part, on_bytes)
        if file.path == WEIGHTS:
            part.write_bytes(part.read_bytes()[:-1] + b"?")

    monkeypatch.setattr(S3Source, "fetch", damaged)
    with pytest.raises(InvalidModelError, match=rf"{WEIGHTS} came 2 times and each time its MD5 is not"):
        fetch_checkpoint(SOURCE, tmp_path / "here", credentials=CREDENTIALS)


def test_a_stored_sha256_is_used_and_an_encrypted_objects_etag_is_not_taken_for_its_md5(client: Any) -> None:
    client.put_object(Bucket="models", Key="digits/vae/config.json", Body=b"{}", ChecksumAlgorithm="SHA256")
    client.put_object(Bucket="models", Key="digits/model_index.json", Body=b"{}", ServerSideEncryption="aws:kms")
    place = S3Source(SOURCE.uri, CREDENTIALS)
    files = {file.path: file for file in place.detailed(place.files())}
    assert files["vae/config.json"].sha256 == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert files["model_index.json"].md5 is None
    assert files[WEIGHTS].md5 is not None


def test_a_students_object_comes_alone(client: Any, tmp_path: Path) -> None:
    client.put_object(Bucket="models", Key="klein-dmd2/0005000.pth", Body=b"weights")
    student = ModelSource(uri="s3://models/klein-dmd2/0005000.pth")
    path, revision = fetch_files(student, tmp_path / "here", credentials=CREDENTIALS)
    assert (path.name, path.read_bytes()) == ("0005000.pth", b"weights")
    assert revision == resolve_revision(student, credentials=CREDENTIALS)


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("uri", ["s3://models/nothing", "s3://no-such-bucket/digits"])
def test_what_is_not_there_is_refused(uri: str) -> None:
    with pytest.raises(InvalidJobError, match=r"holds no objects|does not exist"):
        resolve_revision(ModelSource(uri=uri), credentials=CREDENTIALS)


def test_a_refused_key_names_the_secret(server: Any) -> None:
    server.authorization, server.challenge = "never", None
    refusing = {**CREDENTIALS, "AWS_ENDPOINT_URL": server.url}
    with pytest.raises(InvalidJobError, match=r"access is refused \(401\); name a Secret with valid credentials in model\.secretName"):
        resolve_revision(SOURCE, credentials=refusing)


def test_a_server_that_is_not_there_is_a_passing_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(TransientError, match="s3://models/digits"):
        resolve_revision(SOURCE, credentials={**CREDENTIALS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"})


@pytest.mark.usefixtures("client")
def test_a_full_disk_is_said_before_anything_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30 - 2**20, 2**20))
    with pytest.raises(TransientError, match="more disk space is needed"):
        fetch_checkpoint(SOURCE, tmp_path / "here", credentials=CREDENTIALS)
