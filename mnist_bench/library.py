"""The library: ``import mnist_bench as mb``. What the commands do, from Python, with pandas frames as answers."""

import html
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from mnist_bench import figures, records
from mnist_bench.analysis import frames, summary
from mnist_bench.disk.folder import RunFolder, no_garbage
from mnist_bench.errors import BenchError as BenchError
from mnist_bench.errors import Interrupted, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from mnist_bench.analysis.compare import By

BUILT = Path("built in Python")  # what the manifest says instead of the matrix file's path


class Run:
    """A run as it stands on disk when it is loaded. Get it from ``load`` or ``run``; a notebook shows it as a table.

    A figure that was not measured is missing (``<NA>``) in every frame, never 0.

    Attributes:
        manifest: what it set out to do, where, and how it ended.
        path: its folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self.path = folder, folder.path
        with no_garbage():
            self._found = summary.Run.read(folder)
        self.manifest = self._found.manifest

    def table(self) -> "pd.DataFrame":
        """A row for each cell: the columns of ``results.csv``."""
        with no_garbage():
            return frames.of_table(figures.table_of(self._found.rows))

    def epochs(self) -> "pd.DataFrame":
        """A row for each epoch of each trial that went well: the columns of ``epochs.csv``."""
        return frames.of_lines(summary.EPOCH_COLUMNS, summary.epochs(self._found))

    def sessions(self) -> "pd.DataFrame":
        """A row for each turn of a trial in a round of a timing session: its steps, and the seconds that they took."""
        return frames.of_lines(frames.SESSION_COLUMNS, frames.turns(self._found), paired=bool)

    def compare(
        self, other: "Run | None" = None, *, by: "By | None" = None, reference: str = "", across_machines: bool = False
    ) -> "pd.DataFrame":
        """The cells against each other, or against those of another run: the columns of ``compare --format csv``.

        Args:
            other: a run B; this one is A.
            by: ``device``, ``variant``, ``batch_size`` or ``model``; None: as the command decides.
            reference: a variant to hold the others against; empty: as the matrix says.
            across_machines: compare two runs although machine, software or settings differ.

        Returns:
            A row for each cell; ``attrs`` has ``by`` and ``reference``. ``speedup`` is missing, with a reason, where
            nothing can be compared.

        Raises:
            UsageError: no such ``by`` or ``reference``.
        """
        from mnist_bench.analysis import compare

        second = None if other is None else other._found
        found = compare.compare_as_asked(self._found, second, by, reference, across_machines=across_machines)
        frame = frames.of_table(compare.lines_table(found))
        frame.attrs = {"by": found.by, "reference": found.reference}
        return frame

    def report(self, path: str | Path | None = None) -> Path:
        """Writes the page with plots; None: ``report.html`` in the run's folder.

        Returns:
            Where it is.

        Raises:
            UsageError: it cannot be written there.
        """
        from mnist_bench.cli.console import write
        from mnist_bench.cli.report import drawn

        place = self.path / "report.html" if path is None else Path(path)
        write("report", place, drawn(self._folder)[2].encode("utf-8", "backslashreplace"), follow=path is not None)
        return place

    def __repr__(self) -> str:
        manifest, done = self.manifest, len(self._found.trials)
        return f"<Run {manifest.run_id}: {manifest.status}, {done} of {len(manifest.trials)} trials>"

    def _repr_html_(self) -> str:
        import pandas as pd

        from mnist_bench.analysis import results

        rows = self._found.rows
        columns, lines = results.results("", [row for row in rows if row.status != "skipped"]).texts()
        table = pd.DataFrame(lines, columns=[column.title for column in columns]).to_html(index=False, border=0)
        return table + "".join(f"<p>{html.escape(note)}</p>" for note in [repr(self), *results.notes(rows)])


def load(run: str | Path = "latest", output_dir: str | Path = "results") -> Run:
    """A run by ``latest``, its id, a unique beginning of its id, or its path.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    return Run(RunFolder.open(Path(output_dir), str(run)))


def load_matrix(path: str | Path) -> records.Matrix:
    """Reads a matrix file. A model that is code stands in it by its name; ``run`` decides whether it is executed.

    Raises:
        ConfigError: every problem of the file, with line and column.
    """
    from mnist_bench import config  # pydantic, which those who load a run need not wait for

    return config.load(Path(path), allow_plugins=True)


def Matrix(  # noqa: N802 - it makes one
    *, models: Sequence[Any], devices: Sequence[str], batch_sizes: Sequence[int], variants: Sequence[Any], **more: Any
) -> records.Matrix:
    """A matrix built in Python, with the keys, short forms, defaults and rules of a matrix file.

    Args:
        models, variants: names, or mappings with the keys of an entry.
        more: any other key of the file: ``seeds=5``, ``timing={"budget_seconds": 60}``, ...

    Raises:
        ConfigError: every problem, as ``matrix: models[1]: unknown model ...``.
    """
    from mnist_bench import config

    axes = {"models": models, "devices": devices, "batch_sizes": batch_sizes, "variants": variants}
    return config.checked({**axes, **more}, source="matrix", allow_plugins=True)


class Flags(TypedDict, total=False):
    """Flags of ``mnist-bench run``, which tells with ``--help`` what each does."""

    output_dir: str | Path
    data_dir: str | Path
    filter: str
    timeout: int
    solo: bool
    fail_fast: bool
    strict_devices: bool
    allow_plugins: bool
    offline: bool
    no_wait: bool
    executor: str
    ray_address: str


def run(matrix: records.Matrix | str | Path, *, progress: bool = False, **flags: Unpack[Flags]) -> Run:
    """Trains, times and evaluates every cell, each trial in a process of its own: ``mnist-bench run``.

    A trial that fails raises nothing: it is a row with its status and reason.

    Args:
        matrix: one that was loaded or built, or the path of a file. Code that it names is looked for in the file's
            folder, else in the current one.
        progress: a line on stderr for each trial; else only warnings and failures.
        flags: those of the command, as in ``filter="device=cpu"``, ``solo=True``, ``no_wait=True`` (``Flags``).

    Raises:
        ConfigError, UsageError: what is asked for cannot be done; nothing has been executed.
        Interrupted: by Ctrl-C; what was finished is kept.
    """
    from mnist_bench import config
    from mnist_bench.cli import options
    from mnist_bench.cli import run as command
    from mnist_bench.cli.console import make_console

    if threading.current_thread() is not threading.main_thread():
        raise UsageError("run: only the main thread can hear Ctrl-C, and a run must: call it there")
    for unknown in flags.keys() - Flags.__annotations__.keys():
        raise TypeError(f"run() got an unexpected keyword argument {unknown!r}")
    parser = ArgumentParser()
    command.configure(parser)  # for the defaults of the flags that are left out
    args = parser.parse_args([], Namespace(command="run", quiet=not progress, **flags))
    args.output_dir = Path(args.output_dir)
    if isinstance(matrix, records.Matrix):
        path, chosen = BUILT, config.checked(matrix, source="matrix", allow_plugins=args.allow_plugins)
    else:
        path, chosen = Path(matrix), config.load(Path(matrix), allow_plugins=args.allow_plugins)
    plan, found = command.carry_out(command.begin(args, path, chosen), args, make_console(args, stderr=True))
    if found.manifest.status == "interrupted":
        again = options.resuming(args, plan.folder.run_id)
        raise Interrupted(f"interrupted; what was finished is kept: go on with {again}")
    return Run(plan.folder)
