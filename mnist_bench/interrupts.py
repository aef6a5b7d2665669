"""Ctrl-C: the first is noted and acted on where it is safe, the second ends the program at once."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Within ``with Interrupts() as interrupts:`` a signal sets ``requested`` and makes ``descriptor`` readable.

    A wait that selects on ``descriptor`` wakes up; nothing is raised inside a write to the store. On the second
    signal the process exits with 130 there and then; the workers' lifelines close with it.
    """

    def __init__(self) -> None:
        self.requested = False
        self.descriptor, self._write = os.pipe()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.descriptor)
        os.close(self._write)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(130)
        self.requested = True
        os.write(self._write, b"!")
