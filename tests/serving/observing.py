"""What tests look at: pictures, metrics, HTTP answers."""

from __future__ import annotations

import io
import json
import urllib.request

import numpy as np
from PIL import Image

from engine_runtime.client import GeneratedImage
from engine_runtime.triton.server import LocalTriton
from tests.support.waiting import wait_until


def picture(answer: GeneratedImage) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(answer.data)))


def metrics_page(triton: LocalTriton) -> str:
    with urllib.request.urlopen(triton.metrics_url) as response:
        return response.read().decode()


def metric(triton: LocalTriton, name: str, **labels: str) -> float:
    return metric_of(metrics_page(triton), name, **labels)


def wait_for_metric(triton: LocalTriton, value: float, name: str, **labels: str) -> None:
    """Wait until a metric has this value: metrics follow the answer that they count."""
    wait_until(f"{name} {labels} to be {value:g}", lambda: metric(triton, name, **labels) == value, 10)


def metric_of(page: str, name: str, **labels: str) -> float:
    """The sum of all metrics of that name with these labels; 0 where there is none."""
    total = 0.0
    for line in page.splitlines():
        if line.startswith((f"{name}{{", f"{name} ")) and all(f'{key}="{value}"' in line for key, value in labels.items()):
            total += float(line.rsplit(" ", 1)[1])
    return total


def post(triton: LocalTriton, endpoint: str, body: dict[str, object]) -> str:
    request = urllib.request.Request(f"{triton.http_url}/v2/models/pipeline/{endpoint}", json.dumps(body).encode())
    with urllib.request.urlopen(request) as response:
        return response.read().decode()
