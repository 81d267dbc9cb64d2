"""One finished build that many tests look at, and a store in which further builds find its stages."""

from __future__ import annotations

import pytest

from tests.builder.workflow.builds import digits_job, run, write_job


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def built(shared_store, tmp_path_factory):
    """The digits model in INT8, as the builder's process reports it."""
    finished = run(write_job(tmp_path_factory.mktemp("job"), digits_job()), shared_store)
    assert finished.code == 0, finished.events[-1:] or finished.errors
    return finished
