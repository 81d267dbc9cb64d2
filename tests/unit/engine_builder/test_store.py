from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine_builder.errors import TransientError
from engine_builder.store import FileSum, Store, artifacts, digest_of
from engine_builder.store.checksums import read_checksums

DIGEST = digest_of("a stage", {"steps": 4})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def write(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "result.txt").write_text(text) and None


def write_half(folder: Path) -> None:
    (folder / "half.bin").write_bytes(b"half")
    raise ZeroDivisionError


def started_child(store: Store, statements: str) -> subprocess.Popen[str]:
    """Another process that runs `statements`, says so, and then holds what it has until it is killed."""
    imports = "import sys; from pathlib import Path; from engine_builder.store import Store"
    code = f"{imports}\nstore = Store(Path({str(store.root)!r}))\n{statements}"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def kill(child: subprocess.Popen[str]) -> None:
    with child:
        child.send_signal(signal.SIGKILL)


def test_a_finished_artifact_is_found_and_reused(store: Store) -> None:
    first = store.obtain("export", DIGEST, write("graph"))
    second = store.obtain("export", DIGEST, lambda _: pytest.fail("built twice"))
    assert (first.reused, second.reused) == (False, True)
    assert second.path == store.path("export", DIGEST) == store.root / "artifacts" / f"export-{DIGEST[:16]}"
    assert (second.path / "result.txt").read_text() == "graph"


def test_a_failed_build_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.building("export", DIGEST) as partial:
        write_half(partial)
    assert not store.has("export", DIGEST)
    assert list((store.root / "artifacts").iterdir()) == []


def test_a_failed_resumable_build_keeps_what_it_has_but_does_not_show_it(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.building("fetch", DIGEST, resume=True) as partial:
        write_half(partial)
    assert store.find("fetch", DIGEST) is None
    with store.building("fetch", DIGEST, resume=True) as partial:
        (partial / "half.bin").rename(partial / "weights")
    assert (store.path("fetch", DIGEST) / "weights").read_bytes() == b"half"


BUILD_AND_HOLD = """
with store.building("export", {digest!r}, resume={resume}) as partial:
    (partial / "half.bin").write_bytes(b"half"); print("ready", flush=True); sys.stdin.read()
"""


@pytest.mark.parametrize("resume", [False, True])
def test_a_build_killed_with_signal_9_shows_nothing_and_can_be_done_again(store: Store, resume: bool) -> None:
    kill(started_child(store, BUILD_AND_HOLD.format(digest=DIGEST, resume=resume)))
    assert not store.has("export", DIGEST)
    with store.building("export", DIGEST, resume=resume) as partial:
        assert (partial / "half.bin").exists() is resume
        (partial / "whole.bin").write_bytes(b"whole")
    assert store.find("export", DIGEST, full=True) is not None


def test_two_processes_never_share_a_partial_folder(store: Store) -> None:
    child = started_child(store, BUILD_AND_HOLD.format(digest=DIGEST, resume=True))
    waits, entered = threading.Event(), threading.Event()

    def build_too() -> None:
        with store.building("export", DIGEST, resume=True, on_wait=lambda _: waits.set()):
            entered.set()

    thread = threading.Thread(target=build_too)
    thread.start()
    assert waits.wait(30)
    assert not entered.is_set()
    kill(child)
    thread.join(30)
    assert entered.is_set()


def test_the_second_builder_of_an_engine_key_waits_is_told_for_whom_and_reuses(store: Store) -> None:
    child = started_child(
        store,
        f"""
with store.lock("engine"):
    print("ready", flush=True); sys.stdin.readline()
    store.obtain("compile", {DIGEST!r}, lambda folder: (folder / "plan").write_bytes(b"plan"))
""",
    )
    holders: list[str] = []

    def release(holder: str) -> None:
        holders.append(holder)
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()

    with store.lock("engine", on_wait=release):
        built = store.obtain("compile", DIGEST, lambda _: pytest.fail("built twice"))
    assert built.reused
    assert holders[0].endswith(f"pid {child.pid}")
    with child:
        pass


def test_the_lock_of_a_killed_builder_is_free(store: Store) -> None:
    kill(started_child(store, 'with store.lock("engine"):\n    print("ready", flush=True); sys.stdin.read()'))
    with store.lock("engine", on_wait=lambda holder: pytest.fail(f"waited for {holder}")):
        pass


def test_two_stages_that_wait_for_the_same_artifact_build_it_once(store: Store) -> None:
    builds: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    def build(folder: Path) -> None:
        builds.append(threading.current_thread().name)
        inside.set()
        assert go_on.wait(30)

    first = threading.Thread(target=lambda: store.obtain("export", DIGEST, build))
    first.start()
    assert inside.wait(30)
    assert store.obtain("export", DIGEST, build, on_wait=lambda _: go_on.set()).reused
    first.join(30)
    assert len(builds) == 1


def test_a_truncated_artifact_is_found_by_size_moved_aside_and_rebuilt(store: Store) -> None:
    path = store.obtain("export", DIGEST, write("whole")).path
    (path / "result.txt").write_text("w")
    assert store.verify(path) == ("result.txt has 1 bytes instead of 5",)
    assert not store.obtain("export", DIGEST, write("whole")).reused
    assert (path / "result.txt").read_text() == "whole"
    assert [aside.name.startswith(path.name) for aside in (store.root / "corrupt").iterdir()] == [True]


def test_a_fresh_artifact_is_not_moved_aside_by_who_saw_the_damaged_one_before(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.obtain("export", DIGEST, write("graph"))
    (store.path("export", DIGEST) / "result.txt").write_text("damaged")

    def rebuilt_meanwhile(path: Path, *, full: bool = False) -> tuple[str, ...]:
        monkeypatch.undo()
        Store(store.root).obtain("export", DIGEST, write("fresh"))
        return ("result.txt has another size",)

    monkeypatch.setattr(artifacts, "differences", rebuilt_meanwhile)
    found = store.find("export", DIGEST)
    assert found is not None
    assert (found / "result.txt").read_text() == "fresh"
    assert len(list((store.root / "corrupt").iterdir())) == 1


@pytest.mark.parametrize("outcome", ["differs", "vanishes"])
def test_what_another_process_moved_aside_meanwhile_is_simply_not_there(
    store: Store, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    store.obtain("export", DIGEST, write("graph"))

    def moved_meanwhile(path: Path, *, full: bool = False) -> tuple[str, ...]:
        monkeypatch.undo()
        Store(store.root).set_aside(path)
        if outcome == "vanishes":
            raise FileNotFoundError(path)
        return ("result.txt has another size",)

    monkeypatch.setattr(artifacts, "differences", moved_meanwhile)
    assert store.find("export", DIGEST) is None


def test_a_damaged_artifact_is_left_to_who_builds_it(store: Store) -> None:
    store.obtain("export", DIGEST, write("graph"))
    (store.path("export", DIGEST) / "result.txt").write_text("damaged")
    with store.building("export", DIGEST):
        assert store.find("export", DIGEST) is None
        assert store.has("export", DIGEST)


def test_a_flipped_byte_is_found_by_the_full_check_only(store: Store) -> None:
    path = store.obtain("export", DIGEST, write("whole")).path
    (path / "result.txt").write_text("whale")
    assert store.verify(path) == ()
    assert "result.txt has changed" in store.verify(path, full=True)[0]
    assert store.find("export", DIGEST, full=True) is None
    assert not store.has("export", DIGEST)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: (path / "result.txt").unlink(), "result.txt is missing"),
        (lambda path: (path / "extra").write_text("x"), "extra was added"),
        (lambda path: (path / "checksums.json").unlink(), "checksums.json cannot be read"),
        (lambda path: (path / "checksums.json").write_text("[1"), "checksums.json cannot be read"),
        (lambda path: (path / "checksums.json").write_text('{"files": []}'), "checksums.json cannot be read"),
    ],
)
def test_damage_is_named(store: Store, damage: Callable[[Path], object], problem: str) -> None:
    path = store.obtain("export", DIGEST, write("whole")).path
    damage(path)
    assert problem in store.verify(path)[0]
    assert store.find("export", DIGEST) is None


def test_checksums_that_a_download_knows_are_kept_and_the_rest_is_added(store: Store) -> None:
    with store.building("fetch", DIGEST) as partial:
        (partial / "weights").write_bytes(b"abc")
        (partial / "checksums.json").write_text('{"files": {"weights": {"size": 3, "sha256": "known"}}}')
        (partial / "note").write_text("n")
    sums = read_checksums(store.path("fetch", DIGEST))
    assert sums["weights"] == FileSum(3, "known")
    assert set(sums) == {"weights", "note"}
    assert store.find("fetch", DIGEST) is not None


def test_a_full_disk_while_building_is_worth_another_try(store: Store) -> None:
    with pytest.raises(TransientError, match=r"the disk is full at .*export-"), store.building("export", DIGEST):
        raise OSError(28, "No space left on device")


def test_pruning_removes_the_longest_unused_and_keeps_what_is_named(store: Store) -> None:
    digests = [digest_of(number) for number in range(4)]
    paths = [store.obtain("compile", digest, write("x" * 1000)).path for digest in digests]
    for age, path in enumerate(reversed(paths)):
        os.utime(path / "checksums.json", (1e9 - age, 1e9 - age))
    assert store.find("compile", digests[1]) == paths[1]  # Used just now.
    assert [artifact.path for artifact in store.artifacts()] == [paths[0], paths[2], paths[3], paths[1]]
    removed = store.prune(max_bytes=3000, keep=[paths[0].name])
    assert [artifact.path for artifact in removed] == [paths[2], paths[3]]
    assert [artifact.path for artifact in store.artifacts()] == [paths[0], paths[1]]
    assert all(artifact.size_bytes > 1000 for artifact in store.artifacts())


def test_pruning_removes_what_dead_builders_left_and_spares_the_living(store: Store) -> None:
    kill(started_child(store, BUILD_AND_HOLD.format(digest=DIGEST, resume=True)))
    with store.building("export", digest_of("another")) as partial:
        store.prune(max_bytes=0)
        assert [path.name for path in (store.root / "artifacts").iterdir()] == [partial.name]


@pytest.mark.parametrize(("name", "digest"), [("../export", DIGEST), ("Export", DIGEST), ("export", "../../etc"), ("export", "abc")])
def test_names_cannot_leave_the_store(store: Store, name: str, digest: str) -> None:
    with pytest.raises(ValueError, match="not a stage name and a hex digest"):
        store.path(name, digest)
