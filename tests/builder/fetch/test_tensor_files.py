from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from engine_builder.errors import InvalidModelError, UnsafeModelError
from engine_builder.fetch import TensorInfo, check_tensor_files
from engine_builder.fetch.tensor_files import read_header

DIGITS = Path(__file__).parents[3] / "examples/digits/digits-klein"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(DIGITS, tmp_path / "model")


def raw(entries: dict[str, object], data: bytes) -> bytes:
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + data


def tensor(begin: int, end: int, shape: list[int], dtype: str = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_headers_are_what_safetensors_itself_reads(folder: Path) -> None:
    headers = check_tensor_files(folder)
    for path, header in headers.items():
        assert {name: info.shape for name, info in header.items()} == {
            name: tuple(value.shape) for name, value in load_file(folder / path).items()
        }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int64, torch.bool])
def test_every_dtype_of_a_checkpoint_is_known(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"a": torch.zeros(3, 5, dtype=dtype), "empty": torch.zeros(0, dtype=dtype)}, tmp_path / "x.safetensors")
    assert read_header(tmp_path / "x.safetensors", "x")["a"].shape == (3, 5)


def test_a_truncated_file_is_named_with_the_bytes_that_are_missing(folder: Path) -> None:
    size = (folder / WEIGHTS).stat().st_size
    with (folder / WEIGHTS).open("r+b") as stream:
        stream.truncate(size - 1234)
    with pytest.raises(InvalidModelError, match=rf"{WEIGHTS} is truncated: 1234 of {size} bytes are missing; fetch it again"):
        check_tensor_files(folder)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 400))
def test_no_prefix_of_a_file_is_taken_for_whole(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    whole = raw({"a": tensor(0, 6, [2, 3]), "b": tensor(6, 8, [1], "BF16")}, b"12345678")
    path = tmp_path_factory.getbasetemp() / "prefix.safetensors"
    path.write_bytes(whole[:length])
    if length >= len(whole):
        assert read_header(path, "x") == {"a": TensorInfo("U8", (2, 3)), "b": TensorInfo("BF16", (1,))}
        return
    with pytest.raises(InvalidModelError):
        read_header(path, "x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<!DOCTYPE html>" * 9, "is not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not a safetensors file"),
        (raw({"a": tensor(0, 4, [4])}, b"12345"), "1 bytes follow its last tensor"),
        (raw({"a": tensor(0, 4, [5])}, b"1234"), "the bytes of a do not fit its shape"),
        (raw({"a": tensor(0, 4, [4]), "b": tensor(2, 6, [4])}, b"123456"), "overlap or leave gaps"),
        (raw({"a": tensor(1, 5, [4])}, b"12345"), "overlap or leave gaps"),
        (raw({"a": tensor(0, 4, [4], "PICKLE")}, b"1234"), "corrupted header"),
        (raw({"a": {"dtype": "U8"}}, b""), "corrupted header"),
        (raw({"a": [1]}, b""), "corrupted header"),
        (struct.pack("<Q", 4) + b"[1] ", "corrupted header"),
        (struct.pack("<Q", 4) + b"{,} ", "corrupted header"),
    ],
)
def test_corruption_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(InvalidModelError, match=message):
        read_header(tmp_path / "x.safetensors", "x")


def shard(folder: Path) -> Path:
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    (folder / WEIGHTS).unlink()
    parts = {"part-1.safetensors": names[:20], "part-2.safetensors": names[20:]}
    for part, chosen in parts.items():
        save_file({name: tensors[name] for name in chosen}, folder / "transformer" / part)
    index = {"weight_map": {name: part for part, chosen in parts.items() for name in chosen}}
    path = folder / "transformer/diffusion_pytorch_model.safetensors.index.json"
    path.write_text(json.dumps(index))
    return path


def test_shards_are_checked_against_their_index(folder: Path) -> None:
    index = shard(folder)
    assert len(check_tensor_files(folder)) == 4
    content = json.loads(index.read_text())
    content["weight_map"]["ghost"] = "part-1.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(InvalidModelError, match=r"1 tensors of .* are in none of its shards: ghost"):
        check_tensor_files(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    shard(folder)
    (folder / "transformer/part-2.safetensors").unlink()
    with pytest.raises(InvalidModelError, match=r"transformer/part-2\.safetensors is missing: 1 shards"):
        check_tensor_files(folder)


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "model_index.json").unlink(), r"has no model_index\.json"),
    (lambda folder: (folder / "model_index.json").write_text("{"), r"model_index\.json is not JSON"),
    (lambda folder: (folder / "model_index.json").write_text("[]"), "is not a JSON object"),
    (lambda folder: shutil.rmtree(folder / "vae"), "component vae is missing"),
    (lambda folder: (folder / WEIGHTS).unlink(), "component transformer has no safetensors file"),
    (lambda folder: (folder / "vae/config.json").write_text("{"), r"vae/config\.json is not JSON"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_an_incomplete_checkpoint_is_named(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(InvalidModelError, match=message):
        check_tensor_files(folder)


@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "modeling.Evil"}}),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tok.Evil", None]}}),
        ("transformer/config.json", {"trust_remote_code": True}),
    ],
)
def test_a_configuration_that_wants_code_is_refused(folder: Path, file: str, config: dict[str, object]) -> None:
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **config}))
    with pytest.raises(UnsafeModelError, match=rf"{file} wants code of the checkpoint"):
        check_tensor_files(folder)


def test_a_component_that_is_switched_off_may_be_absent(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "safety_checker": [None, None]}))
    check_tensor_files(folder)
