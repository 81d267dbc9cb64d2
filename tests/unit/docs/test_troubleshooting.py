"""The troubleshooting page has an entry for each reason, and no other; what docs say of values is true of the chart."""

import json
import re
from pathlib import Path

import pytest
import yaml

from diffusion_api.conditions import Reason

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
CLUSTER_PAGES = ("install.md", "upgrade.md", "uninstall.md", "security.md", "b200.md", "troubleshooting.md")
SCHEMA = json.loads((ROOT / "charts/diffusion-operator/values.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_an_entry(reason):
    assert len(ENTRIES.get(reason.value, "")) > 80, f"write `### {reason.value}` in docs/troubleshooting.md: what it means, what to do"


def test_every_entry_is_of_a_reason():
    assert set(ENTRIES) == {reason.value for reason in Reason}


def properties(schema):
    """Keys below a schema, references and choices laid open; None where anything goes."""
    reference = schema.get("$ref", "").rpartition("/")[2]
    if reference:
        return properties(SCHEMA["$defs"][reference])
    if "oneOf" in schema:
        return {name: each for choice in schema["oneOf"] for name, each in properties(choice).items()}
    return schema.get("properties")


def knows(path):
    schema = SCHEMA
    for key in path:
        below = properties(schema)
        if below is None:
            return True
        if key not in below:
            return False
        schema = below[key]
    return True


@pytest.mark.parametrize("page", CLUSTER_PAGES)
def test_values_that_docs_name_exist(page):
    groups = "|".join(name for name in SCHEMA["properties"] if name not in ("image", "replicas"))
    named = re.findall(rf"`((?:{groups})\.[\w.]+)", (DOCS / page).read_text(encoding="utf-8"))
    assert [each for each in named if not knows(each.rstrip(".").split("."))] == []


def test_a_misspelt_value_would_be_found():
    assert knows(["settings", "engineStore", "uri"])
    assert not knows(["settings", "engineStore", "url"])


def test_the_values_of_the_install_page_are_values():
    blocks = re.findall(r"```yaml\n(# values.yaml.*?)```", (DOCS / "install.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        assert [path for path in leaves(yaml.safe_load(block)) if not knows(path)] == []


def leaves(value, path=()):
    if not isinstance(value, dict):
        return [path]
    return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
