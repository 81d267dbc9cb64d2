"""What only TensorRT itself does, which needs a GPU: a stand-in of its interface shows which calls are made.

That the calls mean what we think is shown by TensorRT-RTX, which shares the code and compiles in these tests for real.
"""

from __future__ import annotations

import sys
import types

import pytest
import torch

from diffusion_api.accelerator import Accelerator
from engine_builder.compilers import BuilderSettings, compiler_for
from engine_builder.compilers.tensorrt import TensorRtCompiler
from engine_builder.compilers.timing_cache import attach_timing_cache, save_timing_cache, timing_cache_file
from engine_builder.errors import UnsupportedTargetError
from engine_runtime.executors import tensorrt_library
from engine_runtime.executors.tensorrt_library import load_library

B200 = Accelerator(product="NVIDIA-B200")


class TensorRt(types.ModuleType):
    """TensorRT-RTX under TensorRT's name: without compute capabilities, with a timing cache that keeps what it is given."""

    __version__ = "11.4.0.106"

    def __init__(self) -> None:
        super().__init__("tensorrt")
        self.rtx = load_library("tensorrt_rtx")
        self.configs: list[Config] = []

    def __getattr__(self, name: str):
        if name == "ComputeCapability":
            raise AttributeError(name)
        return getattr(self.rtx.module, name)

    def Builder(self, logger):  # noqa: N802 - TensorRT's name.
        return Builder(self, self.rtx.module.Builder(self.rtx.logger))

    def OnnxParser(self, network, logger):  # noqa: N802 - TensorRT's name.
        return self.rtx.module.OnnxParser(network, self.rtx.logger)


class Builder:
    def __init__(self, module: TensorRt, real) -> None:
        self.module, self.real = module, real

    def __getattr__(self, name: str):
        return getattr(self.real, name)

    def create_builder_config(self):
        self.module.configs.append(Config())
        return self.module.configs[-1]

    def build_serialized_network_to_stream(self, network, config, writer):
        config.cache.entries += b"tuned;"
        return writer.write(b"plan") == len(b"plan")


class Config:
    builder_optimization_level = profiling_verbosity = None

    def __init__(self) -> None:
        self.limits: dict[str, int] = {}
        self.cache: Cache | None = None

    def add_optimization_profile(self, profile) -> int:
        return 0

    def set_memory_pool_limit(self, pool, size: int) -> None:
        self.limits[pool.name] = size

    def create_timing_cache(self, known: bytes):
        return None if known == b"damaged" else Cache(known)

    def set_timing_cache(self, cache, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch
        self.cache = cache

    def get_timing_cache(self):
        return self.cache


class Cache:
    def __init__(self, entries: bytes) -> None:
        self.entries = entries

    def serialize(self) -> bytes:
        return self.entries


@pytest.fixture
def library(monkeypatch):
    module = TensorRt()
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    load_library.cache_clear()
    yield module
    load_library.cache_clear()


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA B200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (10, 0))


def test_without_tensorrt_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    load_library.cache_clear()
    with pytest.raises(UnsupportedTargetError, match=r"pip install diffusion-operator\[tensorrt\]"):
        compiler_for(B200).check(B200, [])


def test_without_a_gpu_it_says_where_to_build(library):
    with pytest.raises(UnsupportedTargetError, match="build on a node with NVIDIA-B200"):
        compiler_for(B200).check(B200, [])


def test_another_gpu_is_refused(library, gpu):
    l4 = Accelerator(product="NVIDIA-L4")
    with pytest.raises(UnsupportedTargetError, match=r"NVIDIA B200 has compute capability 10\.0, NVIDIA-L4 has 8\.9"):
        compiler_for(l4).check(l4, [])


def test_the_right_gpu_goes(library, gpu):
    compiler_for(B200).check(B200, [])


def test_settings_reach_the_builder(library, request_for, tmp_path):
    compiler = TensorRtCompiler(B200, BuilderSettings(workspace_mib=512, optimization_level=5, profiling_verbosity="DETAILED"))
    compiler.compile(request_for(), tmp_path, tmp_path / "timings")
    (config,) = library.configs
    assert config.builder_optimization_level == 5
    assert config.profiling_verbosity.name == "DETAILED"
    assert config.limits == {"WORKSPACE": 512 * 2**20}
    assert compiler.settings() == {"workspace_mib": "512", "optimization_level": "5", "profiling_verbosity": "DETAILED"}


def test_a_second_build_starts_from_the_timings_of_the_first(library, request_for, tmp_path):
    compiler = compiler_for(B200)
    compiler.compile(request_for(), tmp_path, tmp_path / "timings")
    compiler.compile(request_for(), tmp_path, tmp_path / "timings")
    (file,) = (tmp_path / "timings").iterdir()
    assert file.read_bytes() == b"tuned;tuned;"


def test_timings_are_kept_per_version_and_gpu(tmp_path):
    slice_ = Accelerator(product="NVIDIA-B200", mig_profile="1g.23gb")
    names = {timing_cache_file(tmp_path, version, gpu).name for version in ("11.1.0.106", "11.4.0.106") for gpu in (B200, slice_)}
    assert len(names) == 4
    assert "tensorrt-11.4.0.106-NVIDIA-B200-1g.23gb.timing" in names


def test_a_damaged_timing_cache_is_replaced(tmp_path):
    file = tmp_path / "a.timing"
    file.write_bytes(b"damaged")
    config = Config()
    attach_timing_cache(config, file)
    save_timing_cache(config, file)
    assert file.read_bytes() == b""


def test_there_is_one_logger_per_library():
    assert tensorrt_library.load_library("tensorrt_rtx").logger is tensorrt_library.load_library("tensorrt_rtx").logger
