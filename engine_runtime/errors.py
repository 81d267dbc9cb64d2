"""What can go wrong in a generation; each class is one reaction of whoever asked for it.

GenerationError
├── InvalidRequestError        the request is wrong: change it, do not retry
├── GenerationCancelledError   nobody waits for the result any more: drop it
├── QueueFullError             too many requests wait: try again later
├── NotFiniteError             the engine drew NaN: report it, the same request fails again
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


class NotFiniteError(GenerationError):
    """The denoiser gave NaN or infinite numbers, which must never become a picture."""


class PieceError(GenerationError):
    """A piece did not run."""


class EngineFilesError(GenerationError):
    """The files of the engine do not fit together."""
