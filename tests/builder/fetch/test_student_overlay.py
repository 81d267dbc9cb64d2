from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

from diffusion_api.model_spec import StudentFormat
from engine_builder.errors import InvalidModelError, UnsafeModelError
from engine_builder.fetch.overlay import expected_tensors, load_student, write_student

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # Of `dcp.save`, in one process.

TRANSFORMER = Path(__file__).parents[3] / "examples/digits/digits-klein/transformer"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def teacher() -> Tensors:
    return load_file(TRANSFORMER / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="session")
def student(teacher: Tensors) -> Tensors:
    return {name: tensor + 1 for name, tensor in teacher.items()}


class Payload:
    """What an attacker puts into a pickle."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.witness}",)


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def load(path: Path, format: StudentFormat = StudentFormat.FASTGEN) -> Tensors:
    return load_student(path, format, expected_tensors(TRANSFORMER))


def assert_same(found: Tensors, wanted: Tensors) -> None:
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


LAYOUTS: dict[str, Callable[[Tensors, Tensors], object]] = {
    "FastGen with a moving average": lambda net, ema: {
        "model": {"net": prefixed("transformer.", net), "ema": prefixed("transformer.", ema)},
        "optimizer": {"net": {"state": {}, "param_groups": [{"lr": 1e-5}]}},
        "iteration": 5000,
    },
    "FastGen without one": lambda _, ema: {"model": {"net": prefixed("transformer.", ema)}, "iteration": 5000},
    "a named moving average": lambda net, ema: {"model": {"net": net, "ema_9999": ema, "fake_score": net}},
    "flat": lambda _, ema: ema,
    "DDP's and torch.compile's wrappers": lambda _, ema: {"state_dict": prefixed("module._orig_mod.net.transformer.", ema)},
    "FastGen's loss head": lambda _, ema: {"model": {"net": {**prefixed("transformer.", ema), "logvar_linear.weight": torch.ones(3)}}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_a_pth_file_gives_the_transformers_own_names(
    layout: str, tmp_path: Path, teacher: Tensors, student: Tensors
) -> None:
    torch.save(LAYOUTS[layout](teacher, student), tmp_path / "0005000.pth")
    assert_same(load(tmp_path / "0005000.pth"), student)


def test_an_old_torch_file_that_is_no_zip_loads_too(tmp_path: Path, student: Tensors) -> None:
    torch.save(student, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_same(load(tmp_path / "old.pth"), student)


def test_a_dcp_folder_loads(tmp_path: Path, student: Tensors) -> None:
    dcp.save(prefixed("transformer.", student), checkpoint_id=tmp_path / "0005000.net_model", no_dist=True)
    assert_same(load(tmp_path / "0005000.net_model"), student)


def test_of_fastgens_dcp_folders_the_moving_average_is_taken(tmp_path: Path, teacher: Tensors, student: Tensors) -> None:
    dcp.save(prefixed("transformer.", teacher), checkpoint_id=tmp_path / "0005000.net_model", no_dist=True)
    dcp.save(prefixed("transformer.", student), checkpoint_id=tmp_path / "0005000.ema_model", no_dist=True)
    assert_same(load(tmp_path), student)


def test_several_iterations_in_one_folder_are_not_guessed_between(tmp_path: Path) -> None:
    for iteration in ("0001000", "0002000"):
        dcp.save({"a": torch.ones(2)}, checkpoint_id=tmp_path / f"{iteration}.net_model", no_dist=True)
    with pytest.raises(InvalidModelError, match=r"0001000\.net_model, 0002000\.net_model; name one in student\.uri"):
        load(tmp_path)


def test_what_is_not_a_tensor_in_a_dcp_folder_is_never_unpickled(tmp_path: Path, student: Tensors) -> None:
    dcp.save({**student, "logvar_linear.note": Payload(tmp_path / "witness")}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    assert_same(load(tmp_path / "dcp"), student)
    assert not (tmp_path / "witness").exists()


def test_a_malicious_dcp_metadata_is_refused_and_not_run(tmp_path: Path, student: Tensors) -> None:
    dcp.save(student, checkpoint_id=tmp_path / "dcp", no_dist=True)
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(Payload(tmp_path / "witness")))
    with pytest.raises(UnsafeModelError, match=r"posix\.system"):
        load(tmp_path / "dcp")
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, student: Tensors, zipped: bool) -> None:
    state = {"model": {"net": student}, "callbacks": Payload(tmp_path / "witness")}
    torch.save(state, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeModelError, match=r"posix\.system.*save the weights alone"):
        load(tmp_path / "evil.pth")
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"not torch", lambda _: b""])
def test_a_damaged_pth_file_is_named(tmp_path: Path, student: Tensors, damage: Callable[[bytes], bytes]) -> None:
    torch.save(student, tmp_path / "student.pth")
    (tmp_path / "student.pth").write_bytes(damage((tmp_path / "student.pth").read_bytes()))
    with pytest.raises(InvalidModelError, match=r"student\.pth"):
        load(tmp_path / "student.pth")


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_truncated_dcp_folder_is_named(tmp_path: Path, student: Tensors, name: str) -> None:
    dcp.save(student, checkpoint_id=tmp_path / "dcp", no_dist=True)
    file = tmp_path / "dcp" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InvalidModelError, match=r"dcp.* is damaged"):
        load(tmp_path / "dcp")


def test_keys_that_are_left_over_are_counted_and_named(tmp_path: Path, student: Tensors) -> None:
    torch.save({**student, "lora.b": torch.ones(1), "lora.a": torch.ones(1), "text.x": torch.ones(1)}, tmp_path / "s.pth")
    with pytest.raises(InvalidModelError, match=r"3 keys do not belong to this transformer: lora\.a, lora\.b, text\.x$"):
        load(tmp_path / "s.pth")


def test_tensors_that_are_missing_are_counted_and_named(tmp_path: Path, student: Tensors) -> None:
    first, *rest = sorted(student)
    torch.save({name: student[name] for name in rest}, tmp_path / "s.pth")
    with pytest.raises(InvalidModelError, match=rf"1 of {len(student)} tensors are missing: {first}"):
        load(tmp_path / "s.pth")


def test_a_student_of_another_size_is_refused_with_both_shapes(tmp_path: Path, student: Tensors) -> None:
    name = "proj_out.weight"
    torch.save({**student, name: student[name][:, :8].clone()}, tmp_path / "s.pth")
    with pytest.raises(InvalidModelError, match=rf"{name} is \[\d+, 8\] instead of \[\d+, \d+\]"):
        load(tmp_path / "s.pth")


def test_integers_are_not_weights(tmp_path: Path, student: Tensors) -> None:
    torch.save({**student, "proj_out.weight": student["proj_out.weight"].to(torch.int8)}, tmp_path / "s.pth")
    with pytest.raises(InvalidModelError, match=r"1 values are not floating-point tensors: proj_out\.weight"):
        load(tmp_path / "s.pth")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([torch.ones(1)], "holds a list"),
        ({"model": {"ema_1": {}, "ema_2": {}}}, "several moving averages, ema_1, ema_2"),
        ({"model": {"critic": {}}}, "neither `ema` nor `net` but critic"),
    ],
)
def test_other_contents_are_refused_in_words(tmp_path: Path, state: object, message: str) -> None:
    torch.save(state, tmp_path / "s.pth")
    with pytest.raises(InvalidModelError, match=message):
        load(tmp_path / "s.pth")


def test_a_diffusers_student_loads_from_a_file_and_from_shards(tmp_path: Path, student: Tensors) -> None:
    names = sorted(student)
    save_file(student, tmp_path / "whole.safetensors")
    (tmp_path / "shards").mkdir()
    save_file({name: student[name] for name in names[:20]}, tmp_path / "shards" / "1.safetensors")
    save_file({name: student[name] for name in names[20:]}, tmp_path / "shards" / "2.safetensors")
    assert_same(load(tmp_path / "whole.safetensors", StudentFormat.DIFFUSERS), student)
    assert_same(load(tmp_path / "shards", StudentFormat.DIFFUSERS), student)


def test_a_pickle_called_diffusers_is_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "s.pth")
    with pytest.raises(InvalidModelError, match=r"s\.pth is not a safetensors file"):
        load(tmp_path / "s.pth", StudentFormat.DIFFUSERS)
    with pytest.raises(InvalidModelError, match="set format: FastGen"):
        load(tmp_path, StudentFormat.DIFFUSERS)


def test_a_student_becomes_one_safetensors_file_that_fits_the_transformer(tmp_path: Path, student: Tensors) -> None:
    torch.save({"model": {"ema": prefixed("transformer.", student)}}, tmp_path / "s.pth")
    written = write_student(tmp_path / "s.pth", StudentFormat.FASTGEN, TRANSFORMER, tmp_path / "student.safetensors")
    assert_same(load_file(written), student)
    assert expected_tensors(TRANSFORMER).keys() == student.keys()


def test_a_missing_student_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match=r"s\.pth, are not there"):
        load(tmp_path / "s.pth")
