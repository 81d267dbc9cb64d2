"""How a generation's time divides among its pieces: what quantizing one, or leaving out the transformer's body, can gain at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from engine_builder.evaluation.speed import Clock
from engine_runtime.pieces import Array, PieceRunner


class PieceTimes:
    """Wraps runners and adds up the wall-clock time of each, one generation at a time."""

    def __init__(
        self, runners: Mapping[str, PieceRunner], clock: Clock = time.perf_counter, *, synchronize: Callable[[], object] = lambda: None
    ) -> None:
        """Wrap.

        Args:
            runners: By piece name.
            clock: For tests.
            synchronize: Waits until the device is done, where runners return before that, as on a GPU.
        """
        self.seconds = dict.fromkeys(runners, 0.0)
        self._clock = clock
        self._synchronize = synchronize
        self.runners: dict[str, PieceRunner] = {name: self._timed(name, runner) for name, runner in runners.items()}

    def share(self, piece: str) -> float:
        """Return a piece's share of the time of all, in [0, 1]; 0 while nothing ran."""
        total = sum(self.seconds.values())
        return self.seconds[piece] / total if total else 0.0

    def reset(self) -> None:
        """Forget what was measured, for example a warm-up."""
        self.seconds = dict.fromkeys(self.seconds, 0.0)

    def _timed(self, name: str, runner: PieceRunner) -> PieceRunner:
        def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            self._synchronize()  # What earlier pieces left to do is theirs.
            begin = self._clock()
            outputs = runner(inputs)
            self._synchronize()
            self.seconds[name] += self._clock() - begin
            return outputs

        return run
