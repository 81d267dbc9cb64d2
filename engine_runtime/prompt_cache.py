"""Keeps what the text encoder made of the last prompts: people draw many pictures of one prompt, and the encoder is not small."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from engine_runtime.pieces import Array


class PromptCache:
    """Least recently used prompts go first; safe for many threads."""

    def __init__(self, capacity: int) -> None:
        """Keep at most `capacity` prompts; 0 keeps none."""
        self._capacity = capacity
        self._entries: OrderedDict[str, Mapping[str, Array]] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    def get(self, prompt: str) -> Mapping[str, Array] | None:
        """Return the conditions of one prompt, each [1, …], or None."""
        with self._lock:
            entry = self._entries.get(prompt)
            if entry is None:
                self.misses += 1
                return None
            self.hits += 1
            self._entries.move_to_end(prompt)
            return entry

    def put(self, prompt: str, conditions: Mapping[str, Array]) -> None:
        """Keep the conditions of one prompt, each [1, …]; they are never written to."""
        if self._capacity == 0:
            return
        with self._lock:
            self._entries[prompt] = conditions
            self._entries.move_to_end(prompt)
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)
