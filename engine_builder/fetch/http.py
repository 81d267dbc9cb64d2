"""Plain HTTP for the sources that speak it: statuses become errors that say what to do, downloads go on where they broke off."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import requests

from engine_builder.errors import BuildError, InvalidJobError, TransientError

TIMEOUT_SECONDS = (10.0, 60.0)
"""To connect, and between two packets."""
CHUNK_BYTES = 2**18
IDENTITY = {"Accept-Encoding": "identity"}
"""Offsets count bytes of the file, so the server must not compress it."""

_QUERY = re.compile(r"(?<=\S)\?(?=\S*\w)\S+")
"""Up to white space, the one thing that is surely no part of it; a quote or bracket that follows it goes too."""
_PASSWORD = re.compile(r"(?<=://)[^/\s]+(?=@)")
"""Up to the last `@` before the path."""


def redacted(text: str) -> str:
    """Leave out of a URI, or of a sentence with some, what may be secret: its query, which may be a signature, and a password."""
    return _PASSWORD.sub("…", _QUERY.sub("?…", text))


def new_session() -> requests.Session:
    """Return a session whose requests time out."""
    return with_timeouts(requests.Session())


def with_timeouts(session: requests.Session) -> requests.Session:
    """Give all of a session's requests a timeout, also those of a client that sets none."""
    session.request = partial(session.request, timeout=TIMEOUT_SECONDS)
    return session


@contextmanager
def network_errors(uri: str) -> Iterator[None]:
    """Turn what `requests` raises into errors of a build, which name no query of a URI."""
    shown = redacted(uri)
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise InvalidJobError(
            f"{shown}: the server's certificate is not trusted ({redacted(str(error))}); set REQUESTS_CA_BUNDLE to your CA's file"
        ) from error
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.TooManyRedirects) as error:
        raise InvalidJobError(f"{shown}: {redacted(str(error))}") from error
    except requests.exceptions.RequestException as error:
        raise TransientError(f"{shown}: the connection failed ({redacted(str(error))})") from error


def check_status(response: requests.Response, uri: str) -> None:
    """Refuse an answer that is an error.

    Raises:
        InvalidJobError: 401, 403, 404 and other errors of the request.
        TransientError: 408, 429 and errors of the server.
    """
    if response.status_code >= 400:
        raise refusal(response.status_code, uri)


def refusal(status: int, uri: str) -> BuildError:
    """Return the error that an HTTP status means, which names no query of a URI."""
    uri = redacted(uri)
    if status in (401, 403):
        return InvalidJobError(f"{uri}: access is refused ({status}); name a Secret with valid credentials in model.secretName")
    if status in (404, 410):
        return InvalidJobError(f"{uri} does not exist ({status}); check model.uri and model.revision")
    if status in (408, 425, 429) or status >= 500:
        return TransientError(f"{uri}: the server answers {status}; it may be better later")
    return InvalidJobError(f"{uri}: the server answers {status}")


def open_at(get: Callable[[dict[str, str]], requests.Response], uri: str, offset: int, tag: str = "") -> tuple[int, Iterator[bytes]]:
    """Request a file from an offset on.

    Args:
        get: Sends a streamed GET with these headers.
        uri: For messages.
        offset: First byte that is wanted.
        tag: The file's strong ETag: with another one the server sends the whole new file.

    Returns:
        The offset that the server gives, which is 0 where it does not resume, and the bytes.

    Source: RFC 9110, sections 13.1.5 (If-Range) and 14 (Range Requests).
    """
    headers = dict(IDENTITY)
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if tag and not tag.startswith("W/"):
            headers["If-Range"] = tag
    with network_errors(uri):
        response = get(headers)
    if response.status_code == 416:  # Nothing is left, or the file has become shorter: begin anew.
        response.close()
        return open_at(get, uri, 0)
    check_status(response, uri)
    if tag.startswith('"') and response.headers.get("ETag", tag) != tag:
        response.close()
        raise TransientError(f"{redacted(uri)} changed while it was fetched; try again")
    begin = offset if response.status_code == 206 else 0
    return begin, _chunks(response, uri)


def _chunks(response: requests.Response, uri: str) -> Iterator[bytes]:
    with network_errors(uri), response:
        yield from response.iter_content(CHUNK_BYTES)
