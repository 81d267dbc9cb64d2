"""A store that is looked at and stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine_builder.store import Built, Store
from engine_builder.store.checksums import differences


class NotInStoreError(Exception):
    """An artifact would have to be made, and a view makes none."""


class StoreView(Store):
    """Makes no folder, notes no use, moves nothing damaged aside, and builds nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()  # Not the store's own beginning, which makes its folders.

    def find(self, stage_name: str, digest: str, *, full: bool = False) -> Path | None:
        """Return an artifact that is complete and sound."""
        path = self.path(stage_name, digest)
        return path if path.is_dir() and not differences(path, full=full) else None

    def obtain(
        self,
        stage_name: str,
        digest: str,
        build: Callable[[Path], None],
        *,
        resume: bool = False,
        on_wait: Callable[[str], None] | None = None,
    ) -> Built:
        """Return an artifact that is there.

        Raises:
            NotInStoreError: It is not.
        """
        if (path := self.find(stage_name, digest)) is None:
            raise NotInStoreError(stage_name)
        return Built(path, reused=True)

    @contextmanager
    def building(
        self, stage_name: str, digest: str, *, resume: bool = False, on_wait: Callable[[str], None] | None = None
    ) -> Iterator[Path]:
        """Build nothing.

        Raises:
            NotInStoreError: Always.
        """
        raise NotInStoreError(stage_name)
        yield  # What makes this a generator, as `contextmanager` wants it.

    def set_aside(self, path: Path) -> Path:
        """Leave an artifact where it is."""
        return path
