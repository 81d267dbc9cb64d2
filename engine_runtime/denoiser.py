"""One evaluation of the denoiser: as one piece, or as prelude, body and head with the body left out where the step cache says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from diffusion_api.engine_manifest import EngineManifest, LatentStream, Piece
from engine_runtime.arrays import concatenate_named, rows_of
from engine_runtime.errors import EngineFilesError, PieceError
from engine_runtime.pieces import Array, PieceRunner
from engine_runtime.requests import BodyEvent, OnBody
from engine_runtime.step_cache import StepCacheDecider

TRANSFORMER = "transformer"
PRELUDE = "transformer_prelude"
BODY = "transformer_body"
HEAD = "transformer_head"


class PieceCaller:
    """Calls pieces by name, with the inputs they take, in batches no larger than they take."""

    def __init__(self, runners: Mapping[str, PieceRunner], pieces: Mapping[str, Piece], max_batch_size: int) -> None:
        self._runners = runners
        self._pieces = pieces
        self._max_batch_size = max_batch_size

    def __call__(self, name: str, available: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run a piece on those of the available arrays that it takes.

        Raises:
            PieceError: An input is missing; the manifest and the graphs disagree.
        """
        inputs = self._select(name, available)
        rows = next(iter(inputs.values())).shape[0]
        runner = self._runners[name]
        if rows <= self._max_batch_size:
            return runner(inputs)
        starts = range(0, rows, self._max_batch_size)
        return concatenate_named([runner({key: array[s : s + self._max_batch_size] for key, array in inputs.items()}) for s in starts])

    def _select(self, name: str, available: Mapping[str, Array]) -> Mapping[str, Array]:
        piece = self._pieces.get(name)
        if piece is None:  # The builder's loop runs before there are pieces: the runner picks.
            return available
        try:
            return {spec.name: available[spec.name] for spec in piece.inputs}
        except KeyError as missing:
            raise PieceError(f"{name} takes an input {missing} that the loop does not have; build the engine again") from None


class Denoiser:
    """Gives velocities for one batch, step by step, and keeps its residuals."""

    def __init__(
        self, call: PieceCaller, manifest: EngineManifest, decider: StepCacheDecider, owners: Sequence[int], *, split: bool
    ) -> None:
        """Start a batch.

        Args:
            call: Runs the pieces.
            manifest: Names of streams and indicator.
            decider: Decides which steps are computed.
            owners: For each row of the denoiser's batch, the request it belongs to; rows 0 to B − 1 are the requests themselves.
            split: True where the transformer is prelude, body and head.
        """
        self._call = call
        self._streams: tuple[LatentStream, ...] = manifest.streams
        self._indicator = manifest.indicator_output
        self._decider = decider
        self._owners = owners
        self._requests = max(owners) + 1
        self._split = split
        self._residuals: dict[str, Array] = {}

    def velocities(
        self, step: int, inputs: Mapping[str, Array], on_body: OnBody | None
    ) -> tuple[Mapping[str, Array], npt.NDArray[np.bool_]]:
        """Return the denoiser's outputs by name, and for each request [B] whether its step was computed."""
        if not self._split:
            return self._call(TRANSFORMER, inputs), self._decider.decide(step, None)
        prelude = self._call(PRELUDE, inputs)
        computed = self._decider.decide(step, prelude[self._indicator][: self._requests])
        rows = [row for row, owner in enumerate(self._owners) if computed[owner]]
        known = {**inputs, **prelude}
        outputs = self._body(rows, known) if rows else self._reused(known)
        if rows and on_body is not None:
            on_body(self._event(step, rows, prelude[self._indicator]))
        return self._call(HEAD, {**known, **outputs}), computed

    def _body(self, rows: list[int], known: Mapping[str, Array]) -> dict[str, Array]:
        if len(rows) == len(self._owners):
            outputs = dict(self._call(BODY, known))
            self._residuals = {s.name: outputs[s.body_output] - known[s.body_input] for s in self._streams}
            return outputs
        part = rows_of(known, rows)
        computed = self._call(BODY, part)
        for stream in self._streams:
            self._residuals[stream.name][rows] = computed[stream.body_output] - part[stream.body_input]
        outputs = self._reused(known)
        for stream in self._streams:
            outputs[stream.body_output][rows] = computed[stream.body_output]
        return outputs

    def _reused(self, known: Mapping[str, Array]) -> dict[str, Array]:
        return {s.body_output: known[s.body_input] + self._residuals[s.name] for s in self._streams}

    def _event(self, step: int, rows: list[int], indicator: Array) -> BodyEvent:
        own = [row for row in rows if row < self._requests]
        return BodyEvent(step=step, rows=tuple(own), indicator=indicator[own], residuals=rows_of(self._residuals, own))


def is_split(runners: Mapping[str, PieceRunner], *, step_cache: bool) -> bool:
    """Tell how the transformer is run; as one piece where there are both and no step is left out.

    Raises:
        EngineFilesError: It is not there, or not whole.
    """
    if TRANSFORMER in runners and not step_cache:
        return False
    missing = [name for name in (PRELUDE, BODY, HEAD) if name not in runners]
    if missing:
        wanted = "the step cache needs" if step_cache else f"without a piece {TRANSFORMER} the engine needs"
        raise EngineFilesError(f"{wanted} {', '.join(missing)}; build the engine again")
    return True
