from __future__ import annotations

import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from diffusion_api.model_spec import ModelSource
from engine_builder.errors import InvalidJobError, InvalidModelError, TransientError
from engine_builder.fetch import check_tensor_files, fetch_checkpoint, fetch_files, resolve_revision, transfer, web
from engine_builder.store import Store
from engine_builder.store.checksums import measure, write_checksums

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def test_a_folder_without_a_list_of_files_is_found_by_asking(server: Any, checkpoint: Path, tmp_path: Path) -> None:
    source = ModelSource(uri=server.web_folder(checkpoint))
    revision = resolve_revision(source)
    assert not server.gets(f"/model/{WEIGHTS}")
    fetched = fetch_checkpoint(source, tmp_path / "here")
    assert fetched.revision == revision
    assert fetched.licence == "apache-2.0"
    check_tensor_files(fetched.folder)
    assert (fetched.folder / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()
    assert not list(fetched.folder.rglob("*.part"))


def test_shards_are_found_through_their_index(server: Any, checkpoint: Path, tmp_path: Path) -> None:
    tensors = load_file(checkpoint / WEIGHTS)
    (checkpoint / WEIGHTS).unlink()
    save_file(tensors, checkpoint / "transformer/part-1.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "part-1.safetensors")}
    (checkpoint / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    fetched = fetch_checkpoint(ModelSource(uri=server.web_folder(checkpoint)), tmp_path / "here")
    assert "transformer/part-1.safetensors" in fetched.files


def test_a_changed_file_is_another_revision(server: Any, checkpoint: Path) -> None:
    source = ModelSource(uri=server.web_folder(checkpoint))
    before = resolve_revision(source)
    server.files["/model/vae/config.json"] += b" "
    assert resolve_revision(source) != before


def test_a_changed_file_is_another_revision_where_the_server_sends_no_etags(server: Any, checkpoint: Path, tmp_path: Path) -> None:
    """`python -m http.server` behind a proxy that strips dates, for one; same size, other bytes."""
    server.etags = False
    source = ModelSource(uri=server.web_folder(checkpoint))
    before = resolve_revision(source)
    assert fetch_checkpoint(source, tmp_path / "here").revision == before == resolve_revision(source)
    weights = bytearray(server.files[f"/model/{WEIGHTS}"])
    weights[-1] ^= 1
    server.files[f"/model/{WEIGHTS}"] = bytes(weights)
    assert resolve_revision(source) != before


def test_a_date_is_enough_to_tell_versions_apart(server: Any, checkpoint: Path) -> None:
    server.etags = False
    source = ModelSource(uri=server.web_folder(checkpoint))
    dates = ("Mon, 01 Dec 2025 00:00:00 GMT", "Tue, 02 Dec 2025 00:00:00 GMT")
    revisions = []
    for date in dates:
        server.headers_of = {path: {"Last-Modified": date} for path in server.files}
        revisions.append(resolve_revision(source))
    assert len(set(revisions)) == 2
    assert not server.gets(f"/model/{WEIGHTS}")


def test_a_large_file_that_could_change_unseen_is_refused_with_the_cure(
    server: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.etags = False
    monkeypatch.setattr(web, "HASHED_BYTES", 2**20)
    with pytest.raises(InvalidJobError, match=r"neither ETag nor Last-Modified .* list it with its SHA-256 in a checksums\.json"):
        resolve_revision(ModelSource(uri=server.web_folder(checkpoint)))
    write_checksums(checkpoint, measure(checkpoint))
    assert resolve_revision(ModelSource(uri=server.web_folder(checkpoint)))


def test_an_archive_may_be_pinned_by_its_sha256(server: Any, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.etags = False
    monkeypatch.setattr(web, "HASHED_BYTES", 2**20)
    server.files["/model.tar.gz"] = data = packed(checkpoint)
    uri = f"{server.url}/model.tar.gz"
    with pytest.raises(InvalidJobError, match=r"set model\.revision to sha256: and what sha256sum prints"):
        resolve_revision(ModelSource(uri=uri))
    pinned = ModelSource(uri=uri, revision=f"sha256:{hashlib.sha256(data).hexdigest()}")
    assert fetch_checkpoint(pinned, tmp_path / "here").revision == resolve_revision(pinned) == pinned.revision
    server.files["/model.tar.gz"] = packed(checkpoint, **{"more.json": b"{}"})
    with pytest.raises(InvalidModelError, match="SHA-256"):
        fetch_checkpoint(pinned, tmp_path / "other")


@pytest.mark.parametrize(
    ("path", "digest", "said"), [("model.tar", "12ab", "64 hex digits that sha256sum"), ("model", "0" * 64, "pins one file")]
)
def test_a_sha256_that_pins_nothing_is_refused(server: Any, path: str, digest: str, said: str) -> None:
    with pytest.raises(InvalidJobError, match=said):
        resolve_revision(ModelSource(uri=f"{server.url}/{path}", revision=f"sha256:{digest}"))


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(server: Any, checkpoint: Path, tmp_path: Path) -> None:
    source = ModelSource(uri=server.web_folder(checkpoint))
    server.cut_after[f"/model/{WEIGHTS}"] = [2**20, 2**19]
    done: list[int] = []
    fetched = fetch_checkpoint(source, tmp_path / "here", progress=lambda now, _: done.append(now))
    assert server.gets(f"/model/{WEIGHTS}")[1:] == ["bytes=1048576-", "bytes=1572864-"]
    assert (fetched.folder / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()
    assert max(done) == sum(entry.size for entry in fetched.files.values())


def test_a_server_without_ranges_sends_everything_again(server: Any, checkpoint: Path, tmp_path: Path) -> None:
    source = ModelSource(uri=server.web_folder(checkpoint))
    server.ranges = False
    server.cut_after[f"/model/{WEIGHTS}"] = [2**20]
    fetched = fetch_checkpoint(source, tmp_path / "here")
    assert (fetched.folder / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()


def test_a_call_after_a_killed_one_fetches_only_the_rest(server: Any, checkpoint: Path, tmp_path: Path) -> None:
    source = ModelSource(uri=server.web_folder(checkpoint))
    server.cut_after[f"/model/{WEIGHTS}"] = [2**20] + [0] * 20
    with pytest.raises(TransientError):
        fetch_checkpoint(source, tmp_path / "here")
    server.cut_after.clear()
    server.log.clear()
    fetch_checkpoint(source, tmp_path / "here")
    gets = [(path, range_) for method, path, range_ in server.log if method == "GET" and path.endswith(".safetensors")]
    assert gets == [(f"/model/{WEIGHTS}", "bytes=1048576-")]


def test_a_file_that_changed_since_it_was_cut_off_is_not_glued_together(server: Any, checkpoint: Path, tmp_path: Path) -> None:
    source = ModelSource(uri=server.web_folder(checkpoint))
    server.cut_after[f"/model/{WEIGHTS}"] = [2**20] + [0] * 20
    with pytest.raises(TransientError):
        fetch_checkpoint(source, tmp_path / "here")
    server.cut_after.clear()
    changed = bytes(reversed(server.files[f"/model/{WEIGHTS}"]))
    server.files[f"/model/{WEIGHTS}"] = changed
    fetch_checkpoint(source, tmp_path / "here")
    assert (tmp_path / "here" / WEIGHTS).read_bytes() == changed


def test_errors_of_the_server_are_tried_again_and_then_reported_as_passing(server: Any, checkpoint: Path, tmp_path: Path) -> None:
    source = ModelSource(uri=server.web_folder(checkpoint))
    server.statuses[f"/model/{WEIGHTS}"] = [503, 500, 429]
    fetch_checkpoint(source, tmp_path / "here")
    server.statuses["/model/model_index.json"] = [503] * transfer.ATTEMPTS
    server.statuses["/model/checksums.json"] = [404]
    with pytest.raises(TransientError, match="the server answers 503; it may be better later"):
        resolve_revision(source)


def test_a_server_that_is_not_there_is_a_passing_error(server: Any) -> None:
    with pytest.raises(TransientError, match="the connection failed"):
        resolve_revision(ModelSource(uri="http://127.0.0.1:9/model"))


def test_a_list_of_checksums_is_used_and_held(server: Any, checkpoint: Path, tmp_path: Path) -> None:
    write_checksums(checkpoint, measure(checkpoint))
    source = ModelSource(uri=server.web_folder(checkpoint))
    fetched = fetch_checkpoint(source, tmp_path / "here")
    assert fetched.files[WEIGHTS] == measure(checkpoint)[WEIGHTS]
    assert len(server.log) < 40
    data = bytearray(server.files[f"/model/{WEIGHTS}"])
    data[-1] ^= 1
    server.files[f"/model/{WEIGHTS}"] = bytes(data)
    with pytest.raises(InvalidModelError, match=rf"{WEIGHTS} came 2 times and each time its SHA-256 is .* instead of .* upload it again"):
        fetch_checkpoint(source, tmp_path / "again")
    assert not (tmp_path / "again" / WEIGHTS).exists()


def test_a_list_that_climbs_out_of_the_folder_is_refused(server: Any, checkpoint: Path, tmp_path: Path) -> None:
    manifest = {"files": {"model_index.json": {"size": 2, "sha256": "0"}, "vae/../../../evil.json": {"size": 2, "sha256": "0"}}}
    server.files |= {"/model/checksums.json": json.dumps(manifest).encode(), "/model/vae/../../../evil.json": b"{}"}
    server.files["/model/model_index.json"] = (checkpoint / "model_index.json").read_bytes()
    with pytest.raises(InvalidModelError, match="names a file outside its folder"):
        fetch_checkpoint(ModelSource(uri=f"{server.url}/model"), tmp_path / "deep" / "here")
    assert not list(tmp_path.rglob("evil.json"))


@pytest.mark.parametrize(
    ("credentials", "header"),
    [({"token": "secret\n"}, "Bearer secret"), ({"username": "u", "password": "p"}, f"Basic {b64encode(b'u:p').decode()}")],
)
def test_credentials_of_the_secret_open_the_door(server: Any, checkpoint: Path, credentials: dict[str, str], header: str) -> None:
    source = ModelSource(uri=server.web_folder(checkpoint))
    server.authorization = header
    with pytest.raises(InvalidJobError, match=r"access is refused \(401\); name a Secret"):
        resolve_revision(source)
    assert resolve_revision(source, credentials=credentials)


@pytest.mark.parametrize("credentials", [{"token": "secret"}, {"username": "u", "password": "p"}])
def test_credentials_never_leave_the_machine_unencrypted(credentials: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.WebSource, "files", lambda _: pytest.fail("it asked the server"))
    source = ModelSource(uri="http://models.example/klein")
    with pytest.raises(InvalidJobError, match=r"http://models\.example/klein would carry the credentials unencrypted; use https://"):
        resolve_revision(source, credentials=credentials)


def test_a_password_in_the_address_is_refused_like_a_secrets_and_not_repeated() -> None:
    with pytest.raises(InvalidJobError, match="unencrypted") as refused:
        resolve_revision(ModelSource(uri="http://user:hunter2@models.example/klein"))
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("place", ["/nothing.tar", "/nothing", "of a server that is not there"])
def test_a_signature_in_the_address_is_not_repeated_by_an_error(server: Any, tmp_path: Path, place: str) -> None:
    address = f"{server.url}{place}" if place.startswith("/") else "http://127.0.0.1:9/model.tar"
    with pytest.raises((InvalidJobError, TransientError)) as refused:
        fetch_checkpoint(ModelSource(uri=f"{address}?X-Amz-Signature=abc&X-Amz-Credential=def"), tmp_path)
    assert address in str(refused.value)
    assert "abc" not in str(refused.value)
    assert "def" not in str(refused.value)


def test_an_address_with_nothing_is_refused_with_what_was_looked_for(server: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"has neither model_index\.json nor checksums\.json \(404\)"):
        resolve_revision(ModelSource(uri=f"{server.url}/nothing"))
    with pytest.raises(InvalidJobError, match=r"does not exist \(404\)"):
        resolve_revision(ModelSource(uri=f"{server.url}/nothing.tar"))


def test_a_full_disk_is_said_before_anything_comes(server: Any, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ModelSource(uri=server.web_folder(checkpoint))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30 - 2**20, 2**20))
    with pytest.raises(TransientError, match=rf"more disk space is needed at {tmp_path}: 4\.2 MiB are to be written and 1\.0 MiB are free"):
        fetch_checkpoint(source, tmp_path / "here")
    assert not server.gets(f"/model/{WEIGHTS}")


def packed(folder: Path, prefix: str = "", **extra: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, arcname=prefix or ".")
        for name, data in extra.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("prefix", ["", "digits-v1"])
def test_a_tar_file_is_unpacked_without_its_outer_folder(server: Any, checkpoint: Path, tmp_path: Path, prefix: str) -> None:
    server.files["/model.tar.gz"] = packed(checkpoint, prefix)
    fetched = fetch_checkpoint(ModelSource(uri=f"{server.url}/model.tar.gz"), tmp_path / "here")
    check_tensor_files(fetched.folder)
    assert fetched.licence == "apache-2.0"
    assert "demo.py" not in fetched.files
    assert sorted(path.name for path in fetched.folder.glob("*.tar*")) == []


@pytest.mark.parametrize("name", ["../evil.json", "/tmp/evil.json", "vae/../../evil.json"])
def test_a_tar_file_cannot_write_outside_the_folder(server: Any, checkpoint: Path, tmp_path: Path, name: str) -> None:
    server.files["/model.tar"] = packed(checkpoint, **{name: b"{}"})
    with pytest.raises(InvalidModelError, match="names a file outside its folder"):
        fetch_checkpoint(ModelSource(uri=f"{server.url}/model.tar"), tmp_path / "deep" / "here")
    assert not list(tmp_path.rglob("evil.json"))


def test_links_in_a_tar_file_are_not_followed(server: Any, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (checkpoint / "vae" / "leak.json").symlink_to(tmp_path / "secret")
    server.files["/model.tar"] = packed(checkpoint)
    fetched = fetch_checkpoint(ModelSource(uri=f"{server.url}/model.tar"), tmp_path / "here")
    assert "vae/leak.json" not in fetched.files


@pytest.mark.parametrize("data", [b"<html>not a tar file</html>" * 99, packed(Path(__file__))])
def test_what_is_no_packed_checkpoint_is_refused(server: Any, tmp_path: Path, data: bytes) -> None:
    server.files["/model.tar"] = data
    with pytest.raises(InvalidModelError, match=r"damaged or not a tar file|has no model_index\.json"):
        fetch_checkpoint(ModelSource(uri=f"{server.url}/model.tar"), tmp_path / "here")


def test_a_students_file_comes_alone(server: Any, tmp_path: Path) -> None:
    server.files["/students/0005000.pth"] = b"weights" * 1000
    student = ModelSource(uri=f"{server.url}/students/0005000.pth")
    path, revision = fetch_files(student, tmp_path / "here")
    assert (path.name, path.read_bytes()) == ("0005000.pth", b"weights" * 1000)
    assert revision == resolve_revision(student)


KILLED_BUILDER = """
import os, signal, sys
from pathlib import Path
from diffusion_api.model_spec import ModelSource
from engine_builder.fetch import fetch_checkpoint
from engine_builder.store import Store

def die_on_the_way(done, total):
    if done > 2_500_000:
        os.kill(os.getpid(), signal.SIGKILL)

source = ModelSource(uri=sys.argv[1])
Store(Path(sys.argv[2])).obtain("fetch", "0" * 64, lambda partial: fetch_checkpoint(source, partial, progress=die_on_the_way), resume=True)
"""


def test_a_builder_killed_with_signal_9_in_a_download_is_resumed_by_the_next(server: Any, checkpoint: Path, tmp_path: Path) -> None:
    source = ModelSource(uri=server.web_folder(checkpoint))
    store = Store(tmp_path / "store")
    killed = subprocess.run([sys.executable, "-c", KILLED_BUILDER, source.uri, str(store.root)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not store.has("fetch", "0" * 64)
    server.log.clear()
    built = store.obtain("fetch", "0" * 64, lambda partial: fetch_checkpoint(source, partial) and None, resume=True)
    assert store.verify(built.path, full=True) == ()
    check_tensor_files(built.path)
    (resumed,) = server.gets(f"/model/{WEIGHTS}")
    assert int(resumed.removeprefix("bytes=").removesuffix("-")) > 2**20
