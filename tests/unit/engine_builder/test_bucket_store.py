"""A store over a bucket: what one machine has finished is found by the next, and nothing else is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine_builder import __main__ as builder
from engine_builder.errors import InvalidJobError, TransientError
from engine_builder.removal import remove_artifact
from engine_builder.store import CHECKSUMS, Store, digest_of
from engine_builder.store import bucket_store as module
from engine_builder.store.bucket_store import BucketStore, open_bucket_store
from engine_runtime.bucket import Bucket
from tests.support.buckets import BUCKET, PREFIX, URI, keys, overwrite
from tests.unit.engine_builder.test_main_result import published

DIGEST = digest_of("one")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def machine(client: Any, tmp_path: Path, said: list[str]) -> Callable[[str], BucketStore]:
    """A machine's store, over the bucket that all share."""
    return lambda name: open_bucket_store(tmp_path / name, URI, required=("engine",), local=("fetch",), say=said.append)


def write(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "result").write_text(text) and None


def unbuilt(folder: Path) -> None:
    pytest.fail("built again")


def made(client: Any) -> set[str]:
    return {key.removeprefix(f"{PREFIX}/artifacts/").partition("/")[0] for key in keys(client, f"{PREFIX}/artifacts/")}


def test_what_one_machine_has_built_the_next_one_finds(machine: Callable[[str], BucketStore]) -> None:
    assert machine("one").obtain("export", DIGEST, write("graph")).reused is False
    built = machine("two").obtain("export", DIGEST, unbuilt)
    assert built.reused is True
    assert (built.path / "result").read_text() == "graph"


def test_a_download_from_its_source_stays_out_of_the_bucket(machine: Callable[[str], BucketStore], client: Any) -> None:
    machine("one").obtain("fetch", DIGEST, write("weights"), resume=True)
    assert keys(client) == []
    assert machine("two").find("fetch", DIGEST) is None


def test_what_is_here_alone_is_kept_in_the_bucket(machine: Callable[[str], BucketStore], client: Any, tmp_path: Path) -> None:
    path = Store(tmp_path / "one").obtain("engine", DIGEST, write("engine")).path
    assert made(client) == set()
    assert machine("one").find("engine", DIGEST) == path
    assert made(client) == {path.name}


def test_a_copy_that_this_machine_has_damaged_comes_anew_from_the_bucket(machine: Callable[[str], BucketStore], client: Any) -> None:
    path = machine("one").obtain("engine", DIGEST, write("engine")).path
    (path / "result").write_text("enGine")
    assert machine("one").find("engine", DIGEST, full=True) == path
    assert (path / "result").read_text() == "engine"


def test_what_is_damaged_in_the_bucket_is_removed_there_and_built_again(
    machine: Callable[[str], BucketStore], client: Any, said: list[str]
) -> None:
    name = machine("one").obtain("engine", DIGEST, write("engine")).path.name
    (blob,) = [key for key in keys(client) if not key.endswith(CHECKSUMS)]
    overwrite(client, blob, b"enGine")
    built = machine("two").obtain("engine", DIGEST, write("engine"))
    assert built.reused is False
    assert any("is damaged" in sentence and "made anew" in sentence for sentence in said)
    assert (machine("three").obtain("engine", DIGEST, unbuilt).path / "result").read_text() == "engine"
    assert made(client) == {name}


def test_an_engine_that_is_damaged_in_the_bucket_alone_is_mended_from_here(machine: Callable[[str], BucketStore], client: Any) -> None:
    path = machine("one").obtain("engine", DIGEST, write("engine")).path
    (blob,) = [key for key in keys(client) if not key.endswith(CHECKSUMS)]
    overwrite(client, blob, b"enGine")
    assert machine("one").find("engine", DIGEST, full=True) == path
    assert (machine("two").obtain("engine", DIGEST, unbuilt).path / "result").read_text() == "engine"


def build(store: BucketStore, content: str) -> Path:
    with store.building("engine", DIGEST) as folder:
        write(content)(folder)
    return store.path("engine", DIGEST)


def test_of_two_machines_that_build_one_engine_both_report_the_one_that_was_kept_first(
    machine: Callable[[str], BucketStore], said: list[str]
) -> None:
    first = build(machine("one"), "of one")
    second = build(machine("two"), "of two")
    assert [(path / "result").read_text() for path in (first, second, build(machine("three"), "of three"))] == ["of one"] * 3
    assert any("another machine was the first to keep engine-" in sentence for sentence in said)
    assert [*(machine("two").root / "trash").iterdir()] == []


def test_an_engine_that_is_here_and_another_one_in_the_bucket_is_the_bucket_s(
    machine: Callable[[str], BucketStore], tmp_path: Path
) -> None:
    here = Store(tmp_path / "two").obtain("engine", DIGEST, write("of two")).path
    build(machine("one"), "of one")
    assert machine("two").find("engine", DIGEST) == here
    assert (here / "result").read_text() == "of one"


def test_an_engine_stays_where_the_bucket_s_other_one_is_damaged_and_is_kept_instead(
    machine: Callable[[str], BucketStore], client: Any
) -> None:
    build(machine("one"), "of one")
    (blob,) = [key for key in keys(client) if not key.endswith(CHECKSUMS)]
    overwrite(client, blob, b"of 0ne")
    assert (build(machine("two"), "of two") / "result").read_text() == "of two"
    assert (build(machine("three"), "of three") / "result").read_text() == "of two"


def test_an_engine_stays_where_the_bucket_s_other_one_does_not_come(
    machine: Callable[[str], BucketStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(machine("one"), "of one")

    def away(*_: object, **__: object) -> None:
        raise module.BucketUnavailableError("s3://models does not answer now: SlowDown")

    monkeypatch.setattr(Bucket, "download", away)
    with pytest.raises(TransientError, match="SlowDown"):
        build(machine("two"), "of two")
    assert (Store(tmp_path / "two").path("engine", DIGEST) / "result").read_text() == "of two"


def test_what_comes_from_the_bucket_is_flushed_to_the_disk(machine: Callable[[str], BucketStore], monkeypatch: pytest.MonkeyPatch) -> None:
    machine("one").obtain("export", DIGEST, write("graph"))
    flushed: list[str] = []
    monkeypatch.setattr(module, "sync_tree", lambda folder: flushed.append(folder.name))
    monkeypatch.setattr(module, "sync", lambda folder: flushed.append(folder.name))
    path = machine("two").find("export", DIGEST)
    assert path is not None
    assert flushed == [f"{path.name}.partial", "artifacts"]


def test_an_engine_that_cannot_be_read_leaves_the_bucket_too(machine: Callable[[str], BucketStore], client: Any) -> None:
    store = machine("one")
    path = store.obtain("engine", DIGEST, write("engine")).path
    store.set_aside(path)
    assert made(client) == set()
    with store.building("engine", DIGEST) as folder:
        write("engine")(folder)
    assert made(client) == {path.name}


def test_what_is_built_again_after_its_removal_is_kept_again(machine: Callable[[str], BucketStore], client: Any) -> None:
    store = machine("one")
    name = store.obtain("engine", DIGEST, write("engine")).path.name
    assert store.remove(name) is True
    assert made(client) == set()
    assert store.obtain("engine", DIGEST, write("engine")).reused is False
    assert made(client) == {name}


def test_what_was_damaged_here_and_in_the_bucket_is_kept_again(machine: Callable[[str], BucketStore], client: Any) -> None:
    store = machine("one")
    path = store.obtain("engine", DIGEST, write("engine")).path
    (path / "result").write_text("of another size")
    (blob,) = [key for key in keys(client) if not key.endswith(CHECKSUMS)]
    overwrite(client, blob, b"enGine")
    assert store.obtain("engine", DIGEST, write("engine")).reused is False
    assert (machine("two").obtain("engine", DIGEST, unbuilt).path / "result").read_text() == "engine"


def test_a_stage_that_cannot_be_kept_does_not_end_the_build_and_an_engine_does(
    machine: Callable[[str], BucketStore], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = machine("one")

    def away(*_: object, **__: object) -> bool:
        raise module.BucketUnavailableError("s3://models does not answer now: SlowDown")

    monkeypatch.setattr(Bucket, "upload", away)
    monkeypatch.setattr(Bucket, "download", away)
    assert store.obtain("export", DIGEST, write("graph")).reused is False
    assert any("is on this machine alone" in sentence for sentence in said)
    with pytest.raises(TransientError, match=r"SlowDown, then try again"), store.building("engine", DIGEST) as folder:
        write("engine")(folder)
    with pytest.raises(TransientError):
        store.find("engine", digest_of("another"))


def test_a_bucket_that_refuses_ends_the_build_at_its_first_stage(
    machine: Callable[[str], BucketStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> bool:
        raise module.BucketRefusedError("access is refused")

    monkeypatch.setattr(Bucket, "upload", refuse)
    with pytest.raises(InvalidJobError, match="access is refused"):
        machine("one").obtain("reference", DIGEST, write("pictures"))


def test_timings_go_from_machine_to_machine(machine: Callable[[str], BucketStore], client: Any) -> None:
    one, two = machine("one"), machine("two")
    with one.timings():
        one.timing_cache.mkdir(exist_ok=True)
        (one.timing_cache / "b200.timing").write_text("first")
    with two.timings():
        assert (two.timing_cache / "b200.timing").read_text() == "first"
        (two.timing_cache / "b200.timing").write_text("first and second")
    with machine("three").timings():
        assert (machine("three").timing_cache / "b200.timing").read_text() == "first and second"


def test_timings_that_did_not_change_cost_no_write(
    machine: Callable[[str], BucketStore], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    overwrite(client, f"{PREFIX}/timing-cache/b200.timing", b"first")
    monkeypatch.setattr(Bucket, "upload_loose", lambda *given: pytest.fail("wrote"))
    with machine("one").timings():
        pass


def test_timings_that_cannot_be_brought_only_take_time(
    machine: Callable[[str], BucketStore], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with machine("one").timings():
        pass
    assert any("timings of earlier builds are not used" in sentence for sentence in said)


def test_a_removal_takes_an_engine_and_what_only_it_was_made_from_out_of_the_bucket(
    machine: Callable[[str], BucketStore], client: Any
) -> None:
    one = machine("one")
    shared, own = (one.obtain("export", digest_of(name), write(name)).path.name for name in ("shared", "own"))
    gone = published(one, digest_of("gone"), shared, own).path.name
    stays = published(one, digest_of("stays"), shared).path.name
    assert set(remove_artifact(machine("two"), f"artifacts/{gone}", unused_seconds=-3600)) == {gone, own}
    assert made(client) == {stays, shared}


def test_a_stage_result_that_any_machine_used_of_late_stays(machine: Callable[[str], BucketStore], client: Any) -> None:
    one = machine("one")
    recent = one.obtain("export", digest_of("recent"), write("recent")).path.name
    gone = published(one, digest_of("gone")).path.name
    assert remove_artifact(machine("two"), f"artifacts/{gone}") == (gone,)
    assert made(client) == {recent}


def test_use_on_another_machine_is_noted(machine: Callable[[str], BucketStore], client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("one").obtain("export", DIGEST, write("graph"))
    touched: list[str] = []
    monkeypatch.setattr(Bucket, "touch", lambda self, name, folder: touched.append(name))
    path = machine("two").find("export", DIGEST)
    assert path is not None
    assert touched == [path.name]


def test_what_a_killed_upload_left_goes_when_nobody_came_back_for_it(
    machine: Callable[[str], BucketStore], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    overwrite(client, f"{PREFIX}/artifacts/compile-0123456789abcdef/{digest_of('x')}", b"half")
    machine("one").sweep()
    assert made(client) == {"compile-0123456789abcdef"}
    later = time.time() + module.LEFTOVER_SECONDS + 60
    monkeypatch.setattr(module.time, "time", lambda: later)
    machine("one").sweep()
    assert made(client) == set()


@pytest.mark.parametrize("folder", ["Backup", "backup", "old engines", "engine-0123456789abcdef.old", "engine-0123456789ABCDEF"])
@pytest.mark.parametrize("file", ["notes.txt", CHECKSUMS])
def test_a_folder_that_is_no_artifact_stays_and_hinders_no_removal(
    machine: Callable[[str], BucketStore], client: Any, monkeypatch: pytest.MonkeyPatch, folder: str, file: str
) -> None:
    store = machine("one")
    name = published(store, DIGEST).path.name
    overwrite(client, f"{PREFIX}/artifacts/{folder}/{file}", b"{}")
    later = time.time() + module.LEFTOVER_SECONDS + 60
    monkeypatch.setattr(module.time, "time", lambda: later)
    assert remove_artifact(store, f"artifacts/{name}", unused_seconds=-3600) == (name,)
    assert made(client) == {folder}


def test_nothing_of_another_namespace_is_seen_or_removed(machine: Callable[[str], BucketStore], client: Any, tmp_path: Path) -> None:
    other = open_bucket_store(tmp_path / "other", f"s3://{BUCKET}/engines/namespaces/pict", required=("engine",), local=(), say=str)
    name = published(machine("one"), DIGEST).path.name
    assert other.find("engine", DIGEST) is None
    assert remove_artifact(other, f"artifacts/{name}", unused_seconds=0) == ()
    assert made(client) == {name}


def test_the_operator_s_command_removes_from_the_bucket(
    machine: Callable[[str], BucketStore], client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = published(machine("one"), DIGEST).path.name
    monkeypatch.setenv("DIFFUSION_STORE_URI", URI)
    assert builder.main(["remove", f"artifacts/{name}", "--store", str(tmp_path / "two")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["removed"] == [name]
    assert made(client) == set()


def test_a_wrong_address_of_the_bucket_is_a_wrong_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_STORE_URI", "models/engines")
    assert builder.main(["remove", "artifacts/engine-0123456789abcdef", "--store", str(tmp_path)]) == InvalidJobError.exit_code
