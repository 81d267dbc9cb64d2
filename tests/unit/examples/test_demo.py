"""What the demo does to the engine that it serves, by a stand-in for Triton that writes where the real one does."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine_builder.store import Store, digest_of
from engine_runtime.triton.repository import write_model_repository
from engine_runtime.triton.server import LocalTriton
from examples import demo
from tests.unit.engine_runtime import toy

TOKENIZER = '{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}}'
KEY = digest_of("toy")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    with store.building("engine", KEY) as folder:
        constants = toy.constants()
        root = folder / "model_repository"
        write_model_repository(root, manifest=toy.manifest(), compiled={}, constants=constants, tokenizer_json=TOKENIZER)
    return store


def test_a_second_demo_finds_the_engine_that_the_first_one_served(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []

    def start(self: LocalTriton) -> LocalTriton:
        """Put byte code beside each model, as Triton's Python does."""
        for model in self._repository.glob("*/1/model.py"):
            (model.parent / "__pycache__").mkdir()
            loaded.append(model.parent / "__pycache__" / "model.pyc")
            loaded[-1].write_bytes(b"byte code")
        return self

    monkeypatch.setattr("engine_runtime.triton.server.find_triton", lambda: None)
    monkeypatch.setattr(LocalTriton, "__enter__", start)
    monkeypatch.setattr(LocalTriton, "__exit__", lambda *_: None)
    monkeypatch.setattr(demo, "draw_digits", lambda _url, _folder: 0.5)
    assert demo.serve_and_draw(store.path("engine", KEY), tmp_path / "pictures") == 0.5
    assert loaded
    assert store.find("engine", KEY, full=True) == store.path("engine", KEY)
