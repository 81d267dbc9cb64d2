"""An S3 server of this machine, and buckets in it, for tests of what reads and writes engines there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "models"
PREFIX = "engines/namespaces/pictures"
URI = f"s3://{BUCKET}/{PREFIX}"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1"}


@contextmanager
def s3_server() -> Iterator[str]:
    """Run a server; yields its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def empty_bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make a bucket, and the environment by which a pod finds it; yields a client."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    yield client
    for name in keys(client):
        client.delete_object(Bucket=BUCKET, Key=name)
    client.delete_bucket(Bucket=BUCKET)


def keys(client: Any, below: str = "") -> list[str]:
    """Keys of all objects."""
    return [entry["Key"] for entry in client.list_objects_v2(Bucket=BUCKET, Prefix=below).get("Contents", [])]


def overwrite(client: Any, key: str, content: bytes) -> None:
    """Damage an object."""
    client.put_object(Bucket=BUCKET, Key=key, Body=content)
