"""Vega, Vega-Lite and vega-embed as one script for a page.

Making it takes some 2 s, in which vl-convert holds the interpreter's lock: a process of its own makes it while the
caller goes on.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mnist_bench.errors import BenchError


def script() -> str:
    """The script, of the version of Vega-Lite that Altair writes for (0.9 MB). It sets ``window.vegaEmbed``.

    Raises:
        ValueError: the script would end its element early.
    """
    import altair
    import vl_convert

    version = altair.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]
    made = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    if "</script" in made.lower() or "<!--" in made:
        raise ValueError("the bundle of Vega holds the end of a script element")
    return made


class Making:
    """A script that is being made. ``result`` waits for it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def result(self) -> str:
        """Raises BenchError where the process failed; it says why."""
        made, complaint = self._process.communicate()
        if self._process.returncode != 0:
            last = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise BenchError(f"the scripts of the plots could not be made: {last}; install mnist_bench anew")
        return made.decode("utf-8")


@contextmanager
def making() -> Iterator[Making]:
    """Starts the process; it does not outlive the ``with``."""
    command = [sys.executable, "-m", "mnist_bench.vega"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield Making(process)
        finally:
            process.kill()


if __name__ == "__main__":
    sys.stdout.buffer.write(script().encode("utf-8"))
