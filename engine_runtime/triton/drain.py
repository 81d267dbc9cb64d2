"""Waits until a serving pod's requests are done: the `preStop` of its container. Runs beside Triton, and must not import it.

From SIGTERM on Triton takes no request, and none of the pieces' requests either by which the pipeline draws: a picture that is half
drawn by then fails with "Server not ready", however long `--exit-timeout-secs` is. So all pictures must be done before SIGTERM.
"""

from __future__ import annotations

import argparse
import http.client
import math
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence

from engine_runtime.triton.config import PENDING_METRIC

POLL_SECONDS = 0.5
ANSWER_SECONDS = 5.0
QUIET_POLLS = 2
"""So many looks in a row must find nothing: a request that Triton has taken is counted a moment later."""


def pending_requests(metrics_url: str) -> float | None:
    """Return how many requests wait or run.

    Args:
        metrics_url: Triton's Prometheus endpoint.

    Returns:
        None where no request can be lost: nobody listens, or no pipeline is loaded yet. Infinity where Triton listens and does not
        answer in time, as on a node that is overloaded by the very requests that are waited for.
    """
    try:
        with urllib.request.urlopen(metrics_url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310  # Our own http address.
            lines = answer.read().decode().splitlines()
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        return None if isinstance(cause, ConnectionRefusedError) else math.inf
    return next((float(line.split()[-1]) for line in lines if line.startswith(PENDING_METRIC)), None)


def wait_until_drained(
    pending: Callable[[], float | None],
    timeout_seconds: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> float | None:
    """Wait until no request waits or runs.

    Args:
        pending: How many there are; None ends the waiting, for nothing is known.
        timeout_seconds: Longest wait.
        sleep: Waits so many seconds.
        clock: Seconds that only grow.

    Returns:
        How many requests were left when the time was over, infinity where nobody could tell; 0 or None else.
    """
    deadline, quiet = clock() + timeout_seconds, 0
    while True:
        left = pending()
        quiet = quiet + 1 if left == 0 else 0
        if left is None or quiet == QUIET_POLLS or clock() >= deadline:
            return left
        sleep(POLL_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Sleep while endpoints forget the pod, then wait for its requests; see `--help`."""
    parser = argparse.ArgumentParser(prog="python3 -m engine_runtime.triton.drain", description=__doc__)
    parser.add_argument("--sleep-seconds", type=float, default=0, help="time that clients need to learn that the pod leaves")
    parser.add_argument("--timeout-seconds", type=float, required=True, help="time that running requests then have")
    parser.add_argument("--metrics-url", default="http://localhost:8002/metrics", help="Triton's Prometheus endpoint")
    options = parser.parse_args(arguments)
    time.sleep(options.sleep_seconds)
    left = wait_until_drained(lambda: pending_requests(options.metrics_url), options.timeout_seconds)
    if left:
        requests = f"{left:g} requests were not" if math.isfinite(left) else f"{options.metrics_url} does not answer, requests may not be"
        print(f"{requests} done within {options.timeout_seconds:g} s and will fail", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
