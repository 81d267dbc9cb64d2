"""Events come late, twice, out of order or never; the store holds the newest truth."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diffusion_operator.cluster import kinds
from diffusion_operator.cluster.client import Listing
from diffusion_operator.cluster.store import ObjectStore
from diffusion_operator.manifests.labels import DEPLOYMENT


def pod(version, uid="a", name="pod", **labels):
    metadata = {"name": name, "namespace": "n", "uid": uid, "resourceVersion": str(version), "labels": labels, "managedFields": [{}]}
    return {"metadata": metadata, "spec": {"nodeName": "node", "containers": [{}]}, "status": {"version": version}}


def version_of(store, name="pod"):
    body = store.get(kinds.POD, "n", name)
    return body["status"]["version"] if body else None


def test_an_older_version_is_passed_over():
    store = ObjectStore()
    assert store.put(kinds.POD, pod(2))
    assert not store.put(kinds.POD, pod(1))
    assert not store.put(kinds.POD, pod(2))
    assert version_of(store) == 2


def test_a_deleted_object_does_not_come_back_but_its_namesake_does():
    store = ObjectStore()
    store.put(kinds.POD, pod(1))
    assert store.forget(kinds.POD, pod(3))
    assert not store.put(kinds.POD, pod(2))
    assert version_of(store) is None
    assert store.put(kinds.POD, pod(4, uid="b"))
    assert not store.forget(kinds.POD, pod(3))
    assert version_of(store) == 4


def test_an_object_that_lost_its_label_comes_back_with_it():
    store = ObjectStore()
    store.put(kinds.POD, pod(1))
    assert store.forget(kinds.POD, pod(2))
    assert not store.put(kinds.POD, pod(2))
    assert store.put(kinds.POD, pod(3))
    assert version_of(store) == 3


def test_an_end_that_is_told_late_takes_nothing_that_came_back_since():
    store = ObjectStore()
    store.put(kinds.POD, pod(3))
    assert not store.forget(kinds.POD, pod(2))
    assert version_of(store) == 3
    assert store.put(kinds.POD, pod(4))


def test_what_a_listing_lacks_comes_back_only_newer_than_the_listing():
    store = ObjectStore()
    store.put(kinds.POD, pod(1))
    store.replace(kinds.POD, Listing([], "5"), None)
    assert not store.put(kinds.POD, pod(5))
    assert store.put(kinds.POD, pod(6))


def test_a_listing_drops_what_is_gone_and_keeps_what_came_after_it():
    store = ObjectStore()
    for version, name in ((1, "old"), (2, "kept"), (9, "new")):
        store.put(kinds.POD, pod(version, uid=name, name=name))
    assert store.replace(kinds.POD, Listing([pod(2, uid="kept", name="kept"), pod(4, uid="unseen", name="unseen")], "5"), None) == 2
    assert sorted(name for _, name in store.names(kinds.POD)) == ["kept", "new", "unseen"]


def test_a_listing_of_one_namespace_says_nothing_of_others():
    store = ObjectStore()
    store.put(kinds.POD, pod(1))
    store.replace(kinds.POD, Listing([], "5"), "other")
    assert version_of(store) == 1


def test_labels_find_objects_until_they_change():
    store = ObjectStore()
    store.put(kinds.POD, pod(1, **{DEPLOYMENT: "klein"}))
    assert [body["metadata"]["name"] for body in store.labelled(kinds.POD, "n", DEPLOYMENT, "klein")] == ["pod"]
    store.put(kinds.POD, pod(2, **{DEPLOYMENT: "dev"}))
    assert store.labelled(kinds.POD, "n", DEPLOYMENT, "klein") == []
    store.forget(kinds.POD, pod(3))
    assert store.labelled(kinds.POD, "n", DEPLOYMENT, "dev") == []


def test_what_nothing_reads_is_not_kept():
    store = ObjectStore()
    store.put(kinds.POD, pod(1))
    body = store.get(kinds.POD, "n", "pod")
    assert body["spec"] == {"nodeName": "node"}
    assert "managedFields" not in body["metadata"]
    assert (body["apiVersion"], body["kind"]) == ("v1", "Pod")


def test_listeners_hear_of_news_alone():
    store, heard = ObjectStore(), []
    store.subscribe(lambda kind, body, gone: heard.append((body["status"]["version"], gone)))
    for version in (1, 1, 3, 2):
        store.put(kinds.POD, pod(version))
    store.forget(kinds.POD, pod(4))
    store.forget(kinds.POD, pod(4))
    assert heard == [(1, False), (3, False), (3, True)]


@given(st.permutations([*range(1, 6)] * 2))
def test_in_whatever_order_versions_come_the_newest_stays(order):
    store = ObjectStore()
    for version in order:
        store.put(kinds.POD, pod(version))
    assert version_of(store) == 5
