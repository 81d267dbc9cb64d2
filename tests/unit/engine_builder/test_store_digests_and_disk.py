from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_api.model_spec import Shape
from engine_builder.errors import TransientError
from engine_builder.store import digest_of, digest_of_file, digest_of_tree, require_free_space
from engine_builder.store.disk import human_size

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(), JSON))
def test_the_order_of_keys_does_not_change_a_digest(value: dict[str, object]) -> None:
    assert digest_of(value) == digest_of(dict(reversed(value.items())))


def test_the_order_of_parts_does() -> None:
    assert digest_of("a", "b") != digest_of("b", "a")
    assert digest_of("a", "b") != digest_of("ab")


def test_a_contract_counts_in_its_wire_form() -> None:
    assert digest_of(Shape(width=64, height=32)) == digest_of({"width": 64, "height": 32})


@pytest.mark.parametrize("value", [Path("a"), {1, 2}, b"bytes", float("nan")])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        digest_of(value)


def test_a_file_counts_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert digest_of_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_a_tree_counts_by_relative_paths_and_bytes(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place / "sub").mkdir(parents=True)
        (tmp_path / place / "sub" / "file").write_text("same")
    assert digest_of_tree(tmp_path / "one") == digest_of_tree(tmp_path / "two")
    (tmp_path / "two" / "sub" / "file").rename(tmp_path / "two" / "file")
    assert digest_of_tree(tmp_path / "one") != digest_of_tree(tmp_path / "two")


def test_missing_space_is_told_with_amount_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100 * 2**30, 90 * 2**30, 10 * 2**30))
    require_free_space(tmp_path / "not" / "there" / "yet", 9 * 2**30)
    with pytest.raises(TransientError, match=rf"14\.1 GiB more disk space is needed at {tmp_path}: 24\.0 GiB .* 10\.0 GiB are free"):
        require_free_space(tmp_path / "not" / "there" / "yet", 24 * 2**30)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**20, "5.0 MiB"), (3 * 2**50, "3072.0 TiB")]
)
def test_sizes_read_well(size: int, text: str) -> None:
    assert human_size(size) == text
