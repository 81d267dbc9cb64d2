"""CRDs come and go by hooks: Jobs that run before anything else, with rights of their own that go with them."""

from __future__ import annotations

from diffusion_api.crd import all_crds
from tests.chart.rendering import Manifest, containers, of_kind, render

KEEPING = "default"


def hooks(variant: str, *settings: str) -> dict[str, Manifest]:
    """Objects with a hook, by kind and name."""
    found = [each for each in render(variant, *settings) if "helm.sh/hook" in each["metadata"].get("annotations", {})]
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in found}


def events(manifest: Manifest) -> set[str]:
    return set(manifest["metadata"]["annotations"]["helm.sh/hook"].split(","))


def test_crds_are_applied_before_installation_and_before_each_upgrade():
    (job,) = [each for each in hooks(KEEPING).values() if each["kind"] == "Job"]
    assert events(job) == {"pre-install", "pre-upgrade"}
    (container,) = containers(job["spec"]["template"]["spec"])
    assert container["command"] == ["python3", "-m", "diffusion_operator.crds", "apply"]


def test_crds_stay_unless_they_shall_go():
    assert not [each for each in hooks(KEEPING).values() if "post-delete" in events(each)]
    jobs = {name: each for name, each in hooks("everything").items() if each["kind"] == "Job"}
    removal = jobs["Job/painter-diffusion-operator-crds-delete"]
    assert events(removal) == {"post-delete"}
    assert containers(removal["spec"]["template"]["spec"])[0]["command"][-1] == "delete"


def test_no_crd_is_part_of_the_release_which_would_take_it_along():
    assert not of_kind(render(), "CustomResourceDefinition")


def test_what_a_job_needs_is_there_before_it_and_goes_after_it():
    for variant in ("default", "everything", "bucket"):
        found = hooks(variant).values()
        jobs = [each for each in found if each["kind"] == "Job"]
        for each in found:
            annotations = each["metadata"]["annotations"]
            assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
            if each["kind"] != "Job":
                assert int(annotations["helm.sh/hook-weight"]) < 0
                assert events(each) == {event for job in jobs for event in events(job)}


def test_the_hooks_rights_are_held_to_our_own_definitions():
    names = {crd["metadata"]["name"] for crd in all_crds().values()}
    applying, deleting = {"get", "create", "patch"}, {"get", "delete"}
    for variant, verbs in (("default", applying), ("everything", applying | deleting), ("bucket", deleting)):
        (role,) = [each for each in hooks(variant).values() if each["kind"] == "ClusterRole"]
        (rule,) = role["rules"]
        assert set(rule["resourceNames"]) == names
        assert set(rule["verbs"]) == verbs


def test_without_installation_and_with_keeping_there_is_no_hook():
    assert not hooks("minimal")
