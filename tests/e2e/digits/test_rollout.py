"""Changes under load: no request fails."""

from __future__ import annotations

import pytest

from tests.e2e.digits.team import digits

pytestmark = pytest.mark.timeout(1500)


def test_a_changed_recipe_rolls_out_and_no_request_fails(served):
    before = served.get("dd")["status"]["engine"]["name"]
    with served.load() as load:
        served.apply(digits(quantization={"format": "INT8"}))
        served.wait_ready()
        drawn = load.drawn
        served.wait("pictures of the new pods", lambda: load.drawn > drawn + 5, 60)
    assert served.get("dd")["status"]["engine"]["name"] != before
    assert load.failures == []
