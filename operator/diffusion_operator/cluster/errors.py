"""What can go wrong between the operator and the API server; each error is one reaction.

ClusterError
├── UnavailableError   the server did not answer, or not now: try again, later each time
├── OutdatedError      the object is not what we thought it is: look again, then decide anew
│   └── LeftoverError  it belongs to another owner, who may be on its way out: look again for a while, then tell the user
├── MissingError       the object or its kind is not there: look again
└── RefusedError       the server will not have it (rights, quota, admission): tell the user, try again now and then
    └── TakenError     somebody else has an object of that name: the same, for nothing is taken by force
"""

from __future__ import annotations


class ClusterError(Exception):
    """A request failed."""


class UnavailableError(ClusterError):
    """The server did not answer, answered with an error of its own, or asked for patience."""


class OutdatedError(ClusterError):
    """The object changed meanwhile, or is another one of the same name."""


class LeftoverError(OutdatedError):
    """The object belongs to another owner: usually a namesake of ours that was deleted, whose children go one after the other."""


class MissingError(ClusterError):
    """The object, its namespace or its kind does not exist."""


class RefusedError(ClusterError):
    """The server refuses the request, and will do so again until somebody changes something."""


class TakenError(RefusedError):
    """The object is there and is not the operator's, which leaves it alone until somebody deletes or renames one of the two."""


def error_of(status: int, message: str) -> ClusterError:
    """Return the error that an HTTP status stands for."""
    match status:
        case 404:
            return MissingError(message)
        case 409 | 410:  # 410: a list took so long that its next page is gone.
            return OutdatedError(message)
        case 429:
            return UnavailableError(message)
        case status if 400 <= status < 500 and status != 401:
            return RefusedError(message)
        case _:  # 401 too: tokens expire, and the next request carries a new one.
            return UnavailableError(message)
