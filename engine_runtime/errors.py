"""What can go wrong in a generation; each class is one reaction of whoever asked for it.

GenerationError
├── InvalidRequestError        the request is wrong: change it, do not retry
├── GenerationCancelledError   nobody waits for the result any more: drop it
├── QueueFullError             too many requests wait: try again later
├── DegenerateOutputError      the engine drew nothing: report it, the same request fails again
│   └── NotFiniteError         … and gave NaN where it can be seen
├── PieceError                 a piece did not run: report it with the server's log
└── EngineFilesError           the files of the engine do not fit together: build or copy it again
"""

from __future__ import annotations


class GenerationError(Exception):
    """Base of every error of a generation; its message tells the user what to do next."""


class InvalidRequestError(GenerationError):
    """The request is wrong."""


class GenerationCancelledError(GenerationError):
    """Nobody waits for the result any more."""


class QueueFullError(GenerationError):
    """Too many requests wait."""


class DegenerateOutputError(GenerationError):
    """The engine gave a picture of one value, which is what is left of NaN after rounding."""


class NotFiniteError(DegenerateOutputError):
    """The denoiser, or a decoder of what is not rounded, gave NaN or infinite numbers, which must never become a picture."""


class PieceError(GenerationError):
    """A piece did not run."""


class EngineFilesError(GenerationError):
    """The files of the engine do not fit together."""
