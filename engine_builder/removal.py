"""Takes an artifact out of the store, and then the stage results that no engine left in it was made from.

Stage results only save time: an engine holds copies of all it needs, so whatever is dropped here can be built again.
"""

from __future__ import annotations

import re
import time

from pydantic import ValidationError

from diffusion_api.build_report import BuildReport
from engine_builder.build import ENGINE_STAGE, REPORT_FILE
from engine_builder.errors import InvalidJobError
from engine_builder.store import ARTIFACT_NAME, Artifact, Store
from engine_builder.store.locks import OnWait

STAGES_KEPT_HOURS = 24.0
"""A failed build that is tried again within a day goes on where it stopped."""


def remove_artifact(
    store: Store, artifact: str, *, unused_seconds: float = 3600 * STAGES_KEPT_HOURS, on_wait: OnWait | None = None
) -> tuple[str, ...]:
    """Remove one artifact, after whoever builds it, and the stage results that nothing needs any more.

    While a build runs all stage results stay: the next removal drops them.

    Args:
        store: The store.
        artifact: Path below the store, as in `EngineResult.artifact`: `artifacts/<stage>-<digest>`.
        unused_seconds: Stage results that were used since then stay.
        on_wait: Called for each builder that is waited for.

    Returns:
        Folder names that were removed; without the artifact's own where it was gone already.

    Raises:
        InvalidJobError: That is no artifact's path. Nothing was removed.
    """
    folder, _, name = artifact.partition("/")
    if folder != "artifacts" or not ARTIFACT_NAME.fullmatch(name):
        raise InvalidJobError(f"{artifact!r} is no artifact of the store; name one as artifacts/engine-0123456789abcdef")
    removed = [name] if store.remove(name, on_wait) else []
    with store.alone() as is_alone:
        if is_alone:
            store.sweep()
            removed += [each.name for each in unneeded(store, unused_since=time.time() - unused_seconds) if store.remove(each.name)]
    return tuple(removed)


def unneeded(store: Store, *, unused_since: float) -> tuple[Artifact, ...]:
    """Return stage results that no engine of the store was made from and that were not used since a time, in seconds since 1970."""
    artifacts = store.known()
    needed: set[str] = set()
    for engine in artifacts:
        if _is_engine(engine):
            made_from = _made_from(store, engine)
            if made_from is None:
                return ()
            needed |= made_from
    return tuple(each for each in artifacts if not _is_engine(each) and each.name not in needed and each.last_used < unused_since)


def _made_from(store: Store, engine: Artifact) -> set[str] | None:
    """Folder names that an engine was made from; None where its report cannot be read or does not tell."""
    try:
        report = BuildReport.model_validate_json(store.read(engine, REPORT_FILE))
    except (OSError, ValidationError):
        return None
    if any(stage.artifact is None for stage in report.stages):
        return None
    return {stage.artifact for stage in report.stages if stage.artifact is not None}


def _is_engine(artifact: Artifact) -> bool:
    return re.fullmatch(rf"{ENGINE_STAGE}-[0-9a-f]+", artifact.name) is not None
