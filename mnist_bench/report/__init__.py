"""``report``: a run, or the history of many, as one HTML page: records in, text out.

Here stands what must be cheap to import: the script that draws on a page takes some 2 s to make, in which vl-convert
holds the interpreter's lock, so that a process of its own makes it while the caller goes on.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mnist_bench.errors import BenchError

FORMATS = ("svg", "png", "pdf")  # of pictures
THEMES = ("light", "dark")
WIDTH = 160  # of a picture, in millimetres


@contextmanager
def making_script() -> Iterator[Callable[[], str]]:
    """Starts the process, which does not outlive the ``with``; gives what waits for the script (``vega.script``).

    Raises:
        BenchError: (what is given) the process failed; it says why.
    """
    command = [sys.executable, "-m", "mnist_bench.report.vega"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:

        def made() -> str:
            text, complaint = process.communicate()
            if process.returncode != 0:
                last = complaint.strip().rpartition("\n")[2]
                raise BenchError(f"the scripts of the plots could not be made: {last}; install mnist_bench anew")
            return text

        try:
            yield made
        finally:
            process.kill()
