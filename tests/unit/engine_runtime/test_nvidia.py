"""What the C libraries are asked, answered by stand-ins of the same calling convention."""

from __future__ import annotations

import ctypes
from importlib.metadata import files, version
from types import SimpleNamespace

import pytest

from engine_runtime.nvidia import LIBRARIES, LIBRARY_NAMES, Gpu, NoGpuError, first_gpu, library_version, main


def missing(name):
    raise OSError(f"{name}: cannot open shared object file")


class Nvml:
    """One GPU; a call may be told to fail."""

    def __init__(self, *, failing=""):
        self.failing = failing
        self.is_open = False

    def _result(self, function):
        return 999 if function == self.failing else 0

    def nvmlInit_v2(self):  # noqa: N802
        self.is_open = True
        return self._result("nvmlInit_v2")

    def nvmlShutdown(self):  # noqa: N802
        self.is_open = False
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, device):  # noqa: N802
        assert index.value == 0
        device._obj.value = 1
        return self._result("nvmlDeviceGetHandleByIndex_v2")

    def nvmlDeviceGetCudaComputeCapability(self, device, major, minor):  # noqa: N802
        assert device.value == 1
        major._obj.value, minor._obj.value = 10, 0
        return self._result("nvmlDeviceGetCudaComputeCapability")

    def nvmlDeviceGetName(self, _, name, size):  # noqa: N802
        assert size.value == len(name)
        name.value = b"NVIDIA B200"
        return self._result("nvmlDeviceGetName")


def test_the_driver_names_gpu_and_compute_capability():
    nvml = Nvml()
    assert first_gpu(lambda _: nvml) == Gpu("NVIDIA B200", "10.0")
    assert not nvml.is_open


def test_a_machine_without_driver_has_no_gpu():
    with pytest.raises(NoGpuError, match="libnvidia-ml"):
        first_gpu(missing)


@pytest.mark.parametrize(
    "function", ["nvmlInit_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetName"]
)
def test_a_driver_that_does_not_answer_is_named(function):
    with pytest.raises(NoGpuError, match=f"{function} .* code 999"):
        first_gpu(lambda _: Nvml(failing=function))


def test_the_library_of_the_wanted_major_version_is_asked_first():
    asked = []

    def load(name):
        asked.append(name)
        return SimpleNamespace(**{f"getInferLib{part}Version": (lambda number=number: number) for part, number in VERSION.items()})

    assert library_version("tensorrt", "11", load) == "11.1.0.106"
    assert asked == ["libnvinfer.so.11"]


VERSION = {"Major": 11, "Minor": 1, "Patch": 0, "Build": 106}


def test_the_real_library_tells_the_version_that_its_wheel_has():
    (path,) = [each.locate() for each in files("tensorrt-rtx-cu13-libs") or () if each.name.startswith("libtensorrt_rtx.so")]
    assert library_version("tensorrt_rtx", "1", lambda _: ctypes.CDLL(str(path))) == version("tensorrt-rtx-cu13")


def test_a_wheel_on_no_search_path_is_found_by_its_module():
    assert library_version("tensorrt_rtx", "1", missing) == version("tensorrt-rtx-cu13")


def test_a_machine_without_the_library_has_no_version():
    assert library_version("tensorrt", "11", missing) is None


def test_an_image_s_build_ends_where_its_library_is_another():
    installed = version("tensorrt-rtx-cu13")
    assert main(["tensorrt_rtx", installed]) is None
    assert f"this image has {installed}" in str(main(["tensorrt_rtx", "9.9.9.9"]))
    assert "this image has none" in str(main(["tensorrt", "11.1.0.106"]))


def test_every_library_that_a_plan_may_name_has_a_name_for_people() -> None:
    assert LIBRARY_NAMES.keys() == LIBRARIES.keys()
