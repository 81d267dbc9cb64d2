"""Random valid deployments, and the example of the design as a fixed one."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from diffusion_api.accelerator import COMPUTE_CAPABILITIES
from diffusion_api.optimization import ALGORITHMS, MODES, QuantizationFormat

EXAMPLE: dict[str, Any] = {
    "apiVersion": "diffusionoperator.io/v1alpha1",
    "kind": "DiffusionDeployment",
    "metadata": {"name": "klein", "labels": {"team": "pictures"}},
    "spec": {
        "model": {
            "uri": "hf://black-forest-labs/FLUX.2-klein-4B",
            "revision": "0123abc",
            "secretName": "hf-token",
            "student": {"uri": "s3://models/klein-dmd2/0005000.pth", "format": "FastGen"},
            "sampling": {"steps": 4, "guidanceScale": 1.0, "maxSequenceLength": 512},
        },
        "shapes": [{"width": 1024, "height": 1024}],
        "optimization": {
            "quantization": {"format": "Auto"},
            "stepCache": {"policy": "Auto"},
            "calibration": {"samples": 64, "seed": 0},
            "qualityBudget": {"minPSNR": 32, "maxFLIP": 0.08},
        },
        "accelerator": {"product": "NVIDIA-B200"},
        "serving": {"runtime": "Triton", "maxBatchSize": 8, "maxQueueDelayMicroseconds": 1000},
        "autoscaling": {"minReplicas": 0, "maxReplicas": 8, "targetPendingRequests": 2},
        "rollout": {"strategy": "Canary"},
    },
}


def some_of(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with any of the fields, so that defaults are drawn as well."""
    return st.fixed_dictionaries({}, optional=fields)


multiples = st.integers(1, 512).map(lambda count: 16 * count)
sizes = st.lists(st.tuples(multiples, multiples), min_size=1, max_size=16, unique=True)
pictures = sizes.map(lambda drawn: [{"width": width, "height": height} for width, height in drawn])
videos = sizes.map(lambda drawn: [{"width": width, "height": height, "frames": 121, "framesPerSecond": 24} for width, height in drawn])
uris = st.sampled_from(
    ["hf://owner/name", "s3://bucket/key", "https://host/model", "oci://host/name:tag", "pvc://claim/path", "file:///model"]
)
unit = st.floats(0, 1)
levels = st.lists(unit, min_size=1, max_size=8, unique=True).map(lambda drawn: sorted(drawn, reverse=True))


@st.composite
def samplings(draw: st.DrawFn) -> dict[str, Any]:
    schedule = draw(some_of(steps=st.integers(1, 200)) | some_of(sigmas=levels))
    return schedule | draw(some_of(guidanceScale=st.floats(0, 50), maxSequenceLength=st.integers(1, 4096)))


@st.composite
def formats(draw: st.DrawFn) -> dict[str, Any]:
    chosen = draw(st.sampled_from(QuantizationFormat))
    choice: dict[str, Any] = {"format": chosen.value}
    for field, table in (("mode", MODES), ("algorithm", ALGORITHMS)):
        if table[chosen] and draw(st.booleans()):
            choice[field] = draw(st.sampled_from(table[chosen])).value
    return choice


step_caches = st.one_of(
    some_of(policy=st.sampled_from(["Auto", "None"])),
    st.fixed_dictionaries({"policy": st.just("TeaCache")}, optional={"threshold": st.floats(0, 10)}),
    st.just({"policy": "FixedMask"}),
)
names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", fullmatch=True)
calibrations = some_of(samples=st.integers(1, 4096), seed=st.integers(0, 2**32 - 1)).flatmap(
    lambda base: st.one_of(
        st.just(base),
        st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), min_size=1, max_size=4).map(
            lambda p: base | {"prompts": p}
        ),
        names.map(lambda name: base | {"promptsConfigMap": {"name": name}}),
    )
)
budgets = some_of(minPSNR=st.floats(0, 100), minSSIM=unit, maxFLIP=unit, lpipsUri=uris, clipUri=uris) | st.just(
    {"maxLPIPS": 0.1, "lpipsUri": "file:///lpips.pt", "maxClipDrop": 1, "clipUri": "hf://openai/clip"}
)
optimizations = some_of(
    quantization=st.just({})
    | formats()
    | st.fixed_dictionaries({"components": st.dictionaries(st.sampled_from(["textEncoder", "vae"]), formats())}),
    stepCache=step_caches,
    calibration=calibrations,
    qualityBudget=budgets,
)
accelerators = st.one_of(
    st.sampled_from([{"product": "CPU"}, {"product": "CPU", "compiler": "OpenVINO", "count": 1}]),
    st.fixed_dictionaries(
        {"product": st.sampled_from(sorted(COMPUTE_CAPABILITIES))},
        optional={"migProfile": st.just("1g.23gb"), "compiler": st.sampled_from(["TensorRT", "TensorRTRTX"])},
    ),
    st.just({"product": "NVIDIA-Next-1", "computeCapability": "13.0"}),
)
scalings = st.tuples(st.integers(0, 1000), st.integers(1, 1000)).map(lambda ends: {"minReplicas": min(ends), "maxReplicas": max(ends)})
rollouts = some_of(strategy=st.sampled_from(["Canary", "Recreate"]), maxSurge=st.integers(0, 1000), paused=st.booleans()) | some_of(
    strategy=st.just("RollingUpdate"), maxUnavailable=st.integers(1, 1000)
)
specs = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries(
            {"uri": uris},
            optional={
                "revision": st.sampled_from(["main", "0123abc"]),
                "secretName": names,
                "student": st.fixed_dictionaries({"uri": uris}, optional={"format": st.sampled_from(["FastGen", "Diffusers"])}),
                "sampling": samplings(),
            },
        ),
        "accelerator": accelerators,
    },
    optional={
        "shapes": pictures | videos,
        "optimization": optimizations,
        "serving": some_of(maxBatchSize=st.integers(1, 64), maxQueueDelayMicroseconds=st.integers(0, 1_000_000)),
        "replicas": st.integers(0, 1000),
        "autoscaling": scalings,
        "rollout": rollouts,
    },
)
deployments = st.builds(
    lambda name, spec: {
        "apiVersion": "diffusionoperator.io/v1alpha1",
        "kind": "DiffusionDeployment",
        "metadata": {"name": name, "annotations": {"note": "kept"}},
        "spec": spec,
    },
    names,
    specs,
)
