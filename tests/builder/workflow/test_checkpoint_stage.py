"""What decides a download."""

from __future__ import annotations

import pytest

from engine_builder.workflow.checkpoint_stage import place_of


@pytest.mark.parametrize(
    ("uri", "same"),
    [("hf://owner/name/first", False), ("https://host/first.tar.gz", False), ("file:///first", True), ("pvc://claim/first", True)],
)
def test_two_places_share_a_download_only_where_the_revision_is_the_digest_of_the_bytes(uri: str, same: bool) -> None:
    assert (place_of(uri) == place_of(uri.replace("first", "second"))) is same
