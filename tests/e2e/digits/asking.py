"""Asks a Service for pictures one after another, in a pod of the cluster whose Service it is; runs as `python3 -c`, with Python alone.

Prints a line for each answer: `drawn`, or `failed` and why.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request

TIMEOUT_SECONDS = 60
PAUSE_SECONDS = 0.1


def ask(url: str, prompt: str, seed: int) -> str:
    """Ask for one picture over a connection of its own, and return the line to print."""
    body = json.dumps({"prompt": prompt, "seed": seed, "base64": True}).encode()
    request = urllib.request.Request(f"{url}/v2/models/pipeline/generate_stream", body, {"Connection": "close"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            lines = [line.removeprefix("data: ") for line in answer.read().decode().splitlines() if line]
        metadata = json.loads(json.loads(lines[-1]).get("metadata", "{}"))
        return "drawn" if metadata.get("type") == "result" else f"failed {time.strftime('%X')} {lines[-1][:200]}"
    except (OSError, ValueError, LookupError) as error:
        return f"failed {time.strftime('%X')} {type(error).__name__}: {error}"


def ask_on(url: str, prompts: list[str], seed: int) -> None:
    """Ask for ever."""
    asked = 0
    while True:
        # One write a line: `print` ends the line by another, and threads would come in between.
        sys.stdout.write(f"{ask(url, prompts[asked % len(prompts)], seed)}\n")
        sys.stdout.flush()
        asked += 1
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    _, address, clients, *wanted = sys.argv
    for client in range(int(clients)):
        threading.Thread(target=ask_on, args=(address, wanted, client)).start()
