"""A bucket for whoever asks for one; nothing of S3 is imported before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Address of an S3 server that all tests share."""
    from tests.support.buckets import s3_server  # noqa: PLC0415

    with s3_server() as address:
        yield address


@pytest.fixture
def client(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an empty bucket, which the environment names as a pod's does."""
    from tests.support.buckets import empty_bucket  # noqa: PLC0415

    with empty_bucket(s3_endpoint, monkeypatch) as client:
        yield client


@pytest.fixture
def bucket(client: Any) -> Any:
    """That bucket as pods see it."""
    from engine_runtime.bucket import Bucket  # noqa: PLC0415
    from tests.support.buckets import URI  # noqa: PLC0415

    return Bucket(URI)
