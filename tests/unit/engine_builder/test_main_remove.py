"""`python -m engine_builder remove`: what goes, what stays, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine_builder import __main__ as builder
from engine_builder.build import ENGINE_STAGE
from engine_builder.errors import InvalidJobError
from engine_builder.removal import remove_artifact
from engine_builder.store import CHECKSUMS, Store, digest_of
from tests.support.builds import REPOSITORY
from tests.unit.engine_builder.test_main_result import published

OLD = 1_600_000_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def stage(store: Store, name: str, *, used: float = OLD) -> str:
    """A stage result that was last used at a time; returns its folder name."""
    built = store.obtain("export", digest_of(name), lambda folder: (folder / "graph").write_text(name) and None)
    os.utime(built.path / CHECKSUMS, (used, used))
    return built.path.name


def engine(store: Store, name: str, *stages: str) -> str:
    return published(store, digest_of(name), *stages).path.name


def names(store: Store) -> set[str]:
    return {artifact.name for artifact in store.artifacts()}


def test_an_engine_goes_with_the_stage_results_that_only_it_was_made_from(store: Store) -> None:
    shared, own = stage(store, "shared"), stage(store, "own")
    gone, stays = engine(store, "gone", shared, own), engine(store, "stays", shared)
    assert set(remove_artifact(store, f"artifacts/{gone}")) == {gone, own}
    assert names(store) == {stays, shared}
    assert [*(store.root / "trash").iterdir()] == []


def test_removing_what_is_gone_succeeds(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    name = engine(store, "one")
    arguments = ["remove", f"artifacts/{name}", "--store", str(store.root)]
    assert (builder.main(arguments), builder.main(arguments)) == (0, 0)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["removed"] for line in lines] == [[name], []]


def test_a_stage_result_of_a_build_that_may_be_tried_again_stays(store: Store) -> None:
    recent, name = stage(store, "recent", used=4_000_000_000), engine(store, "one")
    assert remove_artifact(store, f"artifacts/{name}") == (name,)
    assert names(store) == {recent}


def test_no_stage_result_goes_where_an_engine_does_not_say_what_it_was_made_from(store: Store) -> None:
    kept, unknown = stage(store, "kept"), engine(store, "unknown")
    (store.root / "artifacts" / unknown / "build.json").write_text("{}")
    assert remove_artifact(store, f"artifacts/{engine(store, 'one')}", unused_seconds=0) != ()
    assert names(store) == {kept, unknown}


def test_no_stage_result_goes_while_anything_is_built(store: Store) -> None:
    kept, name = stage(store, "kept"), engine(store, "one")
    with store.lock(digest_of("another engine")):
        assert remove_artifact(store, f"artifacts/{name}", unused_seconds=0) == (name,)
    assert names(store) == {kept}
    assert remove_artifact(store, f"artifacts/{name}", unused_seconds=0) == (kept,)


@pytest.mark.parametrize("folder", ["Backup", "backup", "engine-0123456789abcdef.old"])
def test_a_folder_that_is_no_artifact_stays_and_hinders_no_removal(store: Store, folder: str) -> None:
    name = engine(store, "one")
    (store.root / "artifacts" / folder).mkdir()
    assert remove_artifact(store, f"artifacts/{name}", unused_seconds=-3600) == (name,)
    assert store.prune(max_bytes=0) == ()
    assert (store.root / "artifacts" / folder).is_dir()


def test_a_removal_waits_for_the_builder_of_the_same_engine(store: Store) -> None:
    waits: list[str] = []
    waiting = threading.Event()

    def note(holder: str) -> None:
        waits.append(holder)
        waiting.set()

    key = digest_of("one")
    remover = threading.Thread(target=lambda: remove_artifact(store, f"artifacts/{ENGINE_STAGE}-{key[:16]}", on_wait=note))
    with store.lock(key):
        remover.start()
        assert waiting.wait(30)
        engine(store, "one")
    remover.join(30)
    assert waits
    assert names(store) == set()


@pytest.mark.parametrize(
    "artifact",
    [
        "artifacts",
        "artifacts/",
        "artifacts/..",
        "artifacts/../../x-0123456789abcdef",
        "/artifacts/engine-0123456789abcdef",
        "artifacts//engine-0123456789abcdef",
        "artifacts/engine-0123456789abcdef/",
        "artifacts/engine-0123456789abcdef/model_repository",
        "artifacts/engine-0123456789abcdef.partial",
        "artifacts/engine-0123456789abcdef\n",
        "artifacts/*-0123456789abcdef",
        "locks/engine-0123456789abcdef",
        "engine-0123456789abcdef",
        "",
    ],
)
def test_what_is_no_artifact_is_refused_and_nothing_is_removed(store: Store, artifact: str) -> None:
    kept = {engine(store, "one"), stage(store, "kept")}
    (store.root / "artifacts" / "engine-0123456789abcdef.partial").mkdir()
    with pytest.raises(InvalidJobError, match="is no artifact of the store"):
        remove_artifact(store, artifact)
    assert names(store) == kept
    assert (store.root / "artifacts" / "engine-0123456789abcdef.partial").is_dir()


def test_the_operator_s_command_runs_and_its_refusal_is_a_failure(store: Store) -> None:
    command = [sys.executable, "-m", "engine_builder", "remove", "artifacts/../secrets", "--store", str(store.root)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 64
    assert json.loads(done.stdout.splitlines()[-1])["succeeded"] is False
