from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from diffusion_api.model_spec import ModelSource
from engine_builder.errors import InvalidJobError, InvalidModelError, UnsafeModelError
from engine_builder.fetch import check_tensor_files, fetch_checkpoint, fetch_files, resolve_revision
from engine_builder.fetch.local import FILES_VARIABLE, folder_of_files
from engine_builder.store import Store


def source(path: object, **more: str) -> ModelSource:
    return ModelSource(uri=f"file://{path}", **more)


def test_wanted_files_are_linked_and_nothing_else_comes(checkpoint: Path, tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    fetched = fetch_checkpoint(source(checkpoint), tmp_path / "here", progress=lambda done, total: progress.append((done, total)))
    assert fetched.folder == tmp_path / "here"
    assert fetched.licence == "apache-2.0"
    assert not {"all-in-one.safetensors", "demo.py", "onnx/model.onnx"} & fetched.files.keys()
    assert [path for path in fetched.files if path.startswith("transformer/")] == [
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
    ]
    assert (fetched.folder / "transformer/diffusion_pytorch_model.safetensors").is_symlink()
    assert check_tensor_files(fetched.folder).keys() == {path for path in fetched.files if path.endswith(".safetensors")}
    total = sum(entry.size for entry in fetched.files.values())
    assert progress[-1] == (total, total)


def test_a_relative_path_starts_from_the_base_folder(checkpoint: Path) -> None:
    wanted = resolve_revision(source(checkpoint))
    assert resolve_revision(source("./checkpoint"), base_folder=checkpoint.parent) == wanted
    assert resolve_revision(source("checkpoint"), base_folder=checkpoint.parent) == wanted


def test_a_copy_with_other_times_has_the_same_revision_and_another_byte_another(checkpoint: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    config = copy / "vae/config.json"
    os.utime(config, (1, 1))
    assert resolve_revision(source(copy)) == resolve_revision(source(checkpoint))
    config.write_text(config.read_text().replace("{", "{ ", 1))
    assert resolve_revision(source(copy)) != resolve_revision(source(checkpoint))


def test_a_pinned_revision_that_is_not_there_is_refused_with_the_one_that_is(checkpoint: Path) -> None:
    revision = resolve_revision(source(checkpoint))
    assert resolve_revision(source(checkpoint, revision=revision)) == revision
    with pytest.raises(InvalidJobError, match=f"now holds revision {revision}, not abc"):
        resolve_revision(source(checkpoint, revision="abc"))


def test_a_fetched_checkpoint_is_a_sound_artifact_until_its_source_changes(checkpoint: Path, tmp_path: Path) -> None:
    store, digest = Store(tmp_path / "store"), "0" * 64
    built = store.obtain("fetch", digest, lambda partial: fetch_checkpoint(source(checkpoint), partial) and None, resume=True)
    assert store.verify(built.path, full=True) == ()
    (checkpoint / "vae/config.json").unlink()
    assert store.verify(built.path) == ("vae/config.json is missing",)


def test_a_volume_of_the_pod_is_a_folder_below_its_mount(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_PVC_ROOT", str(checkpoint.parent.parent))
    volume = checkpoint.parent.name
    assert resolve_revision(ModelSource(uri=f"pvc://{volume}/checkpoint")) == resolve_revision(source(checkpoint))
    with pytest.raises(InvalidJobError, match="leaves its volume"):
        resolve_revision(ModelSource(uri=f"pvc://{volume}/../../etc"))
    monkeypatch.delenv("DIFFUSION_PVC_ROOT")
    with pytest.raises(InvalidJobError, match="DIFFUSION_PVC_ROOT is not set here; use file://"):
        resolve_revision(ModelSource(uri=f"pvc://{volume}/checkpoint"))


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidJobError, match=r"there is no .*nowhere; check the path"):
        resolve_revision(source(tmp_path / "nowhere"))


def test_a_folder_without_an_index_is_no_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model_index.json").unlink()
    with pytest.raises(InvalidModelError, match=r"has no model_index\.json"):
        fetch_checkpoint(source(checkpoint), tmp_path / "here")


@pytest.mark.parametrize("file", ["transformer/modeling.py", "vae/sub/hook.py"])
def test_code_in_a_component_is_refused_before_anything_comes(checkpoint: Path, tmp_path: Path, file: str) -> None:
    (checkpoint / file).parent.mkdir(exist_ok=True)
    (checkpoint / file).write_text("raise SystemExit('this must never run')")
    with pytest.raises(UnsafeModelError, match=rf"holds code, {file}, which is never run"):
        fetch_checkpoint(source(checkpoint), tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_a_pipeline_of_its_own_code_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    index = json.loads((checkpoint / "model_index.json").read_text())
    (checkpoint / "model_index.json").write_text(json.dumps({**index, "_class_name": ["pipeline", "MyPipeline"]}))
    with pytest.raises(UnsafeModelError, match="wants its own pipeline code"):
        fetch_checkpoint(source(checkpoint), tmp_path / "here")


def test_weights_that_are_pickles_only_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    for path in checkpoint.glob("transformer/*.safetensors"):
        path.unlink()
    with pytest.raises(UnsafeModelError, match=r"transformer/diffusion_pytorch_model\.bin is a pickle.*safe_serialization=True"):
        fetch_checkpoint(source(checkpoint), tmp_path / "here")


def test_a_student_comes_as_it_is(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint.parent / "0005000.pth").write_bytes(b"weights")
    student = source(checkpoint.parent / "0005000.pth")
    path, revision = fetch_files(student, tmp_path / "here")
    assert path.read_bytes() == b"weights"
    assert revision == resolve_revision(student)
    folder, _ = fetch_files(source(checkpoint / "vae"), tmp_path / "folder")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]


def test_a_licence_without_a_card_is_its_first_line(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "README.md").write_text("# no front matter")
    (checkpoint / "LICENSE").write_text("\n  FLUX Non-Commercial License v2.0\nmore\n")
    assert fetch_checkpoint(source(checkpoint), tmp_path / "here").licence == "FLUX Non-Commercial License v2.0"


def test_in_a_pod_relative_paths_start_from_the_images_files(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    job = Path("/job/job.json")
    monkeypatch.delenv(FILES_VARIABLE, raising=False)
    assert folder_of_files(job) == Path("/job")
    monkeypatch.setenv(FILES_VARIABLE, str(checkpoint.parent))
    assert resolve_revision(source(checkpoint.name), base_folder=folder_of_files(job)) == resolve_revision(source(checkpoint))


def test_a_pod_is_told_what_file_can_name_there(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    monkeypatch.setenv(FILES_VARIABLE, str(checkpoint.parent))
    told = rf"the builder image holds \(file://{checkpoint.name}\); for other checkpoints use pvc://claim/path, hf://"
    with pytest.raises(InvalidJobError, match=told):
        resolve_revision(source("my/model"), base_folder=folder_of_files(Path("/job/job.json")))
