"""Artifacts in a bucket, on an S3 server of this machine: what counts as there, what is refused, and in which words."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from s3transfer import exceptions as transfer_errors

from engine_builder.store.checksums import differences, measure, write_checksums
from engine_runtime import bucket as bucket_module
from engine_runtime.bucket import (
    ArtifactDamagedError,
    ArtifactMissingError,
    Bucket,
    BucketRefusedError,
    BucketUnavailableError,
)
from tests.support.buckets import BUCKET, PREFIX, keys, overwrite

NAME = "engine-0123456789abcdef"
FOLDER = f"{PREFIX}/artifacts/{NAME}"
WEIGHTS = hashlib.sha256(b"weights").hexdigest()


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "made" / NAME
    (folder / "a/1").mkdir(parents=True)
    (folder / "a/1/model.bin").write_bytes(b"weights")
    (folder / "b.bin").write_bytes(b"weights")  # The same bytes twice are one object.
    (folder / "build.json").write_text("{}")
    (folder / "empty").touch()
    write_checksums(folder, measure(folder))
    return folder


def marker(**files: str) -> bytes:
    """A `checksums.json` that somebody else wrote; files by path, each with the content it claims."""
    entries = {path: {"size": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()} for path, text in files.items()}
    return json.dumps({"formatVersion": 1, "files": entries}).encode()


def test_an_artifact_comes_back_as_it_was_written(bucket: Bucket, artifact: Path, tmp_path: Path) -> None:
    assert bucket.upload(NAME, artifact) is True
    bucket.download(NAME, tmp_path / NAME)
    assert differences(tmp_path / NAME, full=True) == ()
    assert (tmp_path / NAME / "a/1/model.bin").read_bytes() == b"weights"
    assert [(each.name, each.is_complete) for each in bucket.artifacts()] == [(NAME, True)]
    assert bucket.read(NAME, "build.json") == b"{}"


def test_a_large_file_goes_in_parts(bucket: Bucket, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = bucket_module.TransferConfig(multipart_threshold=6 * 2**20, multipart_chunksize=5 * 2**20, max_concurrency=2)
    monkeypatch.setattr(bucket_module, "TRANSFER", parts)
    (artifact / "b.bin").write_bytes(bytes(range(256)) * 50_000)
    write_checksums(artifact, measure(artifact))
    bucket.upload(NAME, artifact)
    bucket.download(NAME, tmp_path / NAME)
    assert differences(tmp_path / NAME, full=True) == ()


def test_what_is_complete_is_not_uploaded_again(bucket: Bucket, client: Any, artifact: Path) -> None:
    bucket.upload(NAME, artifact)
    before = client.head_object(Bucket=BUCKET, Key=f"{FOLDER}/checksums.json")
    (artifact / "build.json").write_text("[]")
    write_checksums(artifact, measure(artifact))
    assert bucket.upload(NAME, artifact) is False
    assert client.head_object(Bucket=BUCKET, Key=f"{FOLDER}/checksums.json")["ETag"] == before["ETag"]


def test_a_killed_upload_leaves_nothing_that_counts_and_the_next_one_goes_on(
    bucket: Bucket, client: Any, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, create = Bucket._write, Bucket._create

    def killed(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(Bucket, "_create", killed)
    with pytest.raises(KeyboardInterrupt):
        bucket.upload(NAME, artifact)
    assert [each.is_complete for each in bucket.artifacts()] == [False]
    with pytest.raises(ArtifactMissingError):
        bucket.download(NAME, tmp_path / NAME)

    written: list[str] = []
    monkeypatch.setattr(Bucket, "_write", lambda self, key, source: (written.append(key), write(self, key, source)))
    monkeypatch.setattr(Bucket, "_create", lambda self, key, source: (written.append(key), create(self, key, source))[1])
    bucket.upload(NAME, artifact)
    assert [key.rpartition("/")[2] for key in written] == ["checksums.json"]
    bucket.download(NAME, tmp_path / NAME)


@pytest.fixture
def other(artifact: Path, tmp_path: Path) -> Path:
    """The same artifact as another machine has built it."""
    folder = shutil.copytree(artifact, tmp_path / "other" / NAME)
    (folder / "build.json").write_text('{"seconds": 2}')
    write_checksums(folder, measure(folder))
    return folder


def answer_of(status: int) -> bucket_module.ClientError:
    return bucket_module.ClientError({"Error": {"Code": str(status)}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


def test_the_upload_that_is_complete_first_stays_while_another_one_runs(
    bucket: Bucket, artifact: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, put = Bucket._write, bucket._client.put_object

    def overtaken(self: Bucket, key: str, source: Path) -> None:
        monkeypatch.setattr(Bucket, "_write", write)
        write(self, key, source)
        assert self.upload(NAME, other) is True

    def unconditional(**given: Any) -> Any:  # As a server does that knows no conditional writes.
        return put(**{name: value for name, value in given.items() if name != "IfNoneMatch"})

    bucket._client.put_object = unconditional
    monkeypatch.setattr(Bucket, "_write", overtaken)
    assert bucket.upload(NAME, artifact) is False
    assert (bucket.holds(NAME, other), bucket.holds(NAME, artifact)) == (True, False)


def test_of_two_uploads_that_end_at_once_the_server_lets_one_stay(
    bucket: Bucket, artifact: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Bucket._create

    def overtaken(self: Bucket, key: str, source: Path) -> bool:
        monkeypatch.setattr(Bucket, "_create", create)
        assert self.upload(NAME, other) is True
        return create(self, key, source)

    monkeypatch.setattr(Bucket, "_create", overtaken)
    assert bucket.upload(NAME, artifact) is False
    assert (bucket.holds(NAME, other), bucket.holds(NAME, artifact)) == (True, False)


@pytest.mark.parametrize("status", [501, 409, 412])
def test_a_server_that_writes_under_no_condition_gets_the_artifact_without(bucket: Bucket, artifact: Path, status: int) -> None:
    put = bucket._client.put_object

    def put_object(**given: Any) -> Any:
        if "IfNoneMatch" in given:
            raise answer_of(status)
        return put(**given)

    bucket._client.put_object = put_object
    assert bucket.upload(NAME, artifact) is True
    assert bucket.holds(NAME, artifact)


def test_a_server_that_refuses_the_last_object_is_no_other_upload(bucket: Bucket, artifact: Path) -> None:
    def put_object(**_: object) -> None:
        raise answer_of(403)

    bucket._client.put_object = put_object
    with pytest.raises(BucketRefusedError, match="access is refused"):
        bucket.upload(NAME, artifact)


def test_a_full_upload_writes_what_is_damaged_at_its_size_anew_and_nothing_else(
    bucket: Bucket, client: Any, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.upload(NAME, artifact)
    overwrite(client, f"{FOLDER}/{WEIGHTS}", b"wEights")
    assert bucket.upload(NAME, artifact) is False
    written: list[str] = []
    write = Bucket._write
    monkeypatch.setattr(Bucket, "_write", lambda self, key, source: (written.append(key), write(self, key, source)))
    assert bucket.upload(NAME, artifact, full=True) is True
    assert [key.rpartition("/")[2] for key in written] == [WEIGHTS, "checksums.json"]
    assert bucket.upload(NAME, artifact, full=True) is False
    bucket.download(NAME, tmp_path / NAME)


def test_a_full_upload_replaces_an_artifact_of_other_files_that_is_damaged(
    bucket: Bucket, client: Any, artifact: Path, other: Path, tmp_path: Path
) -> None:
    bucket.upload(NAME, other)
    overwrite(client, f"{FOLDER}/{WEIGHTS}", b"wEights")
    assert bucket.upload(NAME, artifact, full=True) is True
    bucket.download(NAME, tmp_path / NAME)
    assert (tmp_path / NAME / "build.json").read_text() == "{}"


def test_a_download_is_flushed_when_it_is_whole_and_before_it_gets_its_name(bucket: Bucket, artifact: Path, tmp_path: Path) -> None:
    bucket.upload(NAME, artifact)
    flushed: list[Path] = []

    def flush(folder: Path) -> None:
        assert differences(folder, full=True) == ()
        assert not (tmp_path / NAME).exists()
        flushed.append(folder)

    bucket.download(NAME, tmp_path / NAME, flush=flush)
    assert flushed == [tmp_path / f"{NAME}.partial"]


def test_an_object_that_is_gone_is_uploaded_again(bucket: Bucket, client: Any, artifact: Path, tmp_path: Path) -> None:
    bucket.upload(NAME, artifact)
    client.delete_object(Bucket=BUCKET, Key=f"{FOLDER}/{WEIGHTS}")
    with pytest.raises(ArtifactDamagedError, match="is missing"):
        bucket.download(NAME, tmp_path / NAME)
    assert bucket.upload(NAME, artifact) is True
    bucket.download(NAME, tmp_path / NAME)


@pytest.mark.parametrize("content", [b"wEights", b"weight", b""])
def test_a_damaged_object_is_refused_and_the_artifact_does_not_appear(
    bucket: Bucket, client: Any, artifact: Path, tmp_path: Path, content: bytes
) -> None:
    bucket.upload(NAME, artifact)
    overwrite(client, f"{FOLDER}/{WEIGHTS}", content)
    with pytest.raises(ArtifactDamagedError, match=r"came 2 times with another size or SHA-256"):
        bucket.download(NAME, tmp_path / NAME)
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    "path", ["../evil", "a/../../evil", "/tmp/evil", "a//b", "./a", "", ".", "checksums.json", "a\\b", "a\0b", "..", "a/..", "a/"]
)
def test_a_path_that_leads_out_of_the_folder_is_refused(bucket: Bucket, client: Any, tmp_path: Path, path: str) -> None:
    overwrite(client, f"{FOLDER}/checksums.json", marker(**{"good": "x", path: "y"}))
    overwrite(client, f"{FOLDER}/{hashlib.sha256(b'y').hexdigest()}", b"y")
    overwrite(client, f"{FOLDER}/{hashlib.sha256(b'x').hexdigest()}", b"x")
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(ArtifactDamagedError, match="an entry that no builder writes"):
        bucket.download(NAME, tmp_path / NAME)
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"files": {"a": {"size": 1, "sha256": "../../x"}}}', marker(**{"a": "x", "a/b": "y"}), b"\xff\xfe"]
)
def test_checksums_that_no_builder_writes_are_damage(bucket: Bucket, client: Any, tmp_path: Path, content: bytes) -> None:
    overwrite(client, f"{FOLDER}/checksums.json", content)
    with pytest.raises(ArtifactDamagedError):
        bucket.download(NAME, tmp_path / NAME)
    assert not (tmp_path / NAME).exists()


def test_a_download_goes_on_with_what_had_come(
    bucket: Bucket, client: Any, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.upload(NAME, artifact)
    partial = tmp_path / f"{NAME}.partial"
    shutil.copytree(artifact / "a", partial / "a")
    (partial / "b.bin").write_bytes(b"weig")
    (partial / "old").write_text("of another upload")
    brought: list[str] = []
    bring = Bucket._bring
    monkeypatch.setattr(
        Bucket, "_bring", lambda self, name, target, path, sums: (brought.append(path), bring(self, name, target, path, sums))
    )
    bucket.download(NAME, tmp_path / NAME)
    assert sorted(brought) == ["b.bin", "build.json", "empty"]
    assert differences(tmp_path / NAME, full=True) == ()


def test_a_disk_that_is_too_small_is_found_before_a_byte_comes(
    bucket: Bucket, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.upload(NAME, artifact)
    monkeypatch.setattr(bucket_module.shutil, "disk_usage", lambda place: namedtuple("Usage", "free")(2**20))
    monkeypatch.setattr(Bucket, "_bring", lambda *given: pytest.fail("began"))
    with pytest.raises(BucketUnavailableError, match=r"lacks 63 MiB .* give the node more disk"):
        bucket.download(NAME, tmp_path / NAME)


def test_a_deleted_artifact_leaves_no_object(bucket: Bucket, client: Any, artifact: Path) -> None:
    bucket.upload(NAME, artifact)
    bucket.upload("engine-fedcba9876543210", artifact)
    assert (bucket.delete(NAME), bucket.delete(NAME)) == (True, False)
    assert keys(client, FOLDER) == []
    assert [each.name for each in bucket.artifacts()] == ["engine-fedcba9876543210"]


@pytest.mark.parametrize("name", ["", ".", "..", "../artifacts", "a/b", "/", "*"])
def test_nothing_but_one_artifact_can_be_deleted(bucket: Bucket, client: Any, artifact: Path, name: str) -> None:
    bucket.upload(NAME, artifact)
    with pytest.raises(ValueError, match="not the name of an artifact"):
        bucket.delete(name)
    assert keys(client) != []


def test_a_killed_deletion_leaves_nothing_that_counts(
    bucket: Bucket, client: Any, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.upload(NAME, artifact)
    delete = Bucket._delete

    def killed(self: Bucket, key: str) -> None:
        delete(self, key)
        raise KeyboardInterrupt

    monkeypatch.setattr(Bucket, "_delete", killed)
    with pytest.raises(KeyboardInterrupt):
        bucket.delete(NAME)
    assert f"{FOLDER}/checksums.json" not in keys(client)


def test_loose_files_are_brought_where_they_lack_and_the_last_writer_wins(bucket: Bucket, client: Any, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/a.timing").write_text("newer")
    overwrite(client, f"{PREFIX}/timing-cache/a.timing", b"older")
    overwrite(client, f"{PREFIX}/timing-cache/b.timing", b"b")
    overwrite(client, f"{PREFIX}/timing-cache/../evil.timing", b"evil")
    bucket.download_loose("timing-cache", tmp_path / "here")
    assert {path.name: path.read_text() for path in (tmp_path / "here").iterdir()} == {"a.timing": "newer", "b.timing": "b"}
    bucket.upload_loose("timing-cache", tmp_path / "here/a.timing")
    bucket.download_loose("timing-cache", tmp_path / "there")
    assert (tmp_path / "there/a.timing").read_text() == "newer"


@pytest.mark.parametrize("uri", ["models", "s3://", "s3:///prefix", "https://models", "gs://models"])
def test_what_is_no_address_of_a_bucket_is_refused(uri: str) -> None:
    with pytest.raises(BucketRefusedError, match=r"write it as s3://bucket/prefix"):
        Bucket(uri)


def test_a_bucket_that_is_not_there_is_named(client: Any, tmp_path: Path) -> None:
    with pytest.raises(BucketRefusedError, match=r"there is no bucket nowhere; make it"):
        Bucket("s3://nowhere/engines").download(NAME, tmp_path / NAME)


@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        (403, "AccessDenied", BucketRefusedError, "must be allowed to list the bucket"),
        (401, "InvalidAccessKeyId", BucketRefusedError, r"engineStore\.secretName"),
        (400, "AuthorizationHeaderMalformed", BucketRefusedError, "AWS_REGION"),
        (400, "RequestTimeout", BucketUnavailableError, "does not answer now"),
        (429, "TooManyRequests", BucketUnavailableError, "does not answer now"),
        (503, "SlowDown", BucketUnavailableError, "does not answer now"),
        (500, "InternalError", BucketUnavailableError, "does not answer now"),
    ],
)
def test_each_answer_of_the_server_is_one_reaction(
    bucket: Bucket, tmp_path: Path, status: int, code: str, error: type[Exception], words: str
) -> None:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}

    def refuse(**_: object) -> None:
        raise bucket_module.ClientError(answer, "GetObject")

    bucket._client.get_object = refuse
    with pytest.raises(error, match=words):
        bucket.download(NAME, tmp_path / NAME)


def test_a_server_that_is_not_there_may_come_back(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(BucketUnavailableError, match="cannot be reached"):
        Bucket("s3://models/engines").download(NAME, tmp_path / NAME)


@pytest.mark.parametrize(
    "error",
    [
        transfer_errors.RetriesExceededError(ConnectionResetError("reset by peer")),
        transfer_errors.S3DownloadFailedError("did not match expected ETag"),
        transfer_errors.S3ValidationError("Response range end `9` exceeds requested end `6`"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_transfer_that_breaks_may_succeed_next_time(bucket: Bucket, artifact: Path, tmp_path: Path, error: Exception) -> None:
    bucket.upload(NAME, artifact)

    def broken(*_: object, **__: object) -> None:
        raise error

    bucket._client.download_fileobj = broken
    with pytest.raises(BucketUnavailableError, match="cannot be reached"):
        bucket.download(NAME, tmp_path / NAME)


def test_without_credentials_the_secret_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(bucket_module.boto3, "DEFAULT_SESSION", None)  # It keeps the credentials of earlier tests.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(BucketRefusedError, match=r"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in engineStore\.secretName"):
        Bucket("s3://models/engines").download(NAME, tmp_path / NAME)
