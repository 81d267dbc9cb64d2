"""The content-addressed store that makes builds resumable: what is there is complete, what is not is built once.

`artifacts.py` is the store, `bucket_store.py` the same over a bucket, `locks.py` keeps two builders apart, `checksums.py` finds
corruption, `disk.py` finds a full disk early, and `digests.py` gives things their names.
"""

from engine_builder.store.artifacts import ARTIFACT_NAME, Artifact, Built, Store
from engine_builder.store.checksums import CHECKSUMS, FileSum
from engine_builder.store.digests import digest_of, digest_of_file, digest_of_tree
from engine_builder.store.disk import require_free_space

__all__ = [
    "ARTIFACT_NAME",
    "CHECKSUMS",
    "Artifact",
    "Built",
    "FileSum",
    "Store",
    "digest_of",
    "digest_of_file",
    "digest_of_tree",
    "require_free_space",
]
