"""The library: ``import mnist_bench as mb``. What the commands do, from Python, with pandas frames as answers."""

import html
import os
import threading
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_bench import records
from mnist_bench.analysis import frames, results, summary
from mnist_bench.cells import variant_of
from mnist_bench.disk.folder import RunFolder, no_garbage
from mnist_bench.errors import BenchError as BenchError
from mnist_bench.errors import Interrupted, UsageError, unknown

if TYPE_CHECKING:
    import pandas as pd

    from mnist_bench.analysis.compare import By

BUILT = "built in Python"  # what the manifest says instead of the matrix file's path


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
            return frames.of_rows(self._found.rows)

    def epochs(self) -> "pd.DataFrame":
        """A row for each epoch of each trial that went well: the columns of ``epochs.csv``."""
        return frames.of_epochs(self._found)

    def sessions(self) -> "pd.DataFrame":
        """A row for each turn of a trial in a round of a timing session: its steps, and the seconds that they took."""
        return frames.of_sessions(self._found)

    def compare(
        self,
        other: "Run | None" = None,
        *,
        by: "By | None" = None,
        reference: str | None = None,
        across_machines: bool = False,
    ) -> "pd.DataFrame":
        """The cells against each other, or against those of another run: the columns of ``compare --format csv``.

        Args:
            other: a run B; this one is A.
            by: ``device``, ``variant``, ``batch_size`` or ``model``; None: as the command decides.
            reference: a variant to hold the others against.
            across_machines: compare two runs although machine, software or settings differ.

        Returns:
            A row for each cell; ``attrs`` has ``by`` and ``reference``. ``speedup`` is missing, with a reason, where
            nothing can be compared.

        Raises:
            UsageError: no such ``by`` or ``reference``.
        """
        from mnist_bench.analysis import compare

        if by is not None and by not in compare.BY:
            raise UsageError(f"by: {unknown('key', by, compare.BY)}")
        if other is None:
            variant = None if reference is None else variant_of(self.manifest.matrix, reference).name
            found = compare.compare_cells(self._found, by or compare.default_by(self._found), reference=variant)
        elif by or reference:
            raise UsageError("by, reference: of the cells of one run; two runs are compared cell by cell")
        else:
            found = compare.compare_runs(self._found, other._found, across_machines=across_machines)
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
        text = drawn(self._folder)[2]
        write("report", place, text.encode("utf-8", "backslashreplace"), follow=path is not None)
        return place

    def __repr__(self) -> str:
        manifest, done = self.manifest, len(self._found.trials)
        return f"<Run {manifest.run_id}: {manifest.status}, {done} of {len(manifest.trials)} trials>"

    def _repr_html_(self) -> str:
        import pandas as pd

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


def run(
    matrix: records.Matrix | str | Path,
    *,
    output_dir: str | Path = "results",
    data_dir: str | Path | None = None,
    filter: str | None = None,
    solo: bool = False,
    timeout_s: int | None = None,
    fail_fast: bool = False,
    strict_devices: bool = False,
    allow_plugins: bool = False,
    offline: bool = False,
    wait: bool = True,
    progress: bool = False,
) -> Run:
    """Trains, times and evaluates every cell, each trial in a process of its own: ``mnist-bench run``.

    A trial that fails raises nothing: it is a row with its status and reason.

    Args:
        matrix: one that was loaded or built, or the path of a file. Code that it names is looked for in the file's
            folder, else in the current one.
        filter, solo, ...: the flags of the command.
        wait: for another run on this machine to end.
        progress: a line on stderr for each trial; else only warnings and failures.

    Raises:
        ConfigError, UsageError: what is asked for cannot be done; nothing has been executed.
        Interrupted: by Ctrl-C; what was finished is kept.
    """
    from mnist_bench import config
    from mnist_bench.cli import options
    from mnist_bench.cli.console import make_console
    from mnist_bench.cli.run import carry_out
    from mnist_bench.running import runner

    if threading.current_thread() is not threading.main_thread():
        raise UsageError("run: only the main thread can hear Ctrl-C, and a run must: call it there")
    path = None if isinstance(matrix, records.Matrix) else Path(matrix)
    chosen = matrix if isinstance(matrix, records.Matrix) else load_matrix(matrix)
    chosen = config.checked(chosen, source=str(path or "matrix"), allow_plugins=allow_plugins)
    args = Namespace(
        output_dir=Path(output_dir),
        data_dir=None if data_dir is None else Path(data_dir),
        fail_fast=fail_fast,
        offline=offline,
        timeout=timeout_s,
        no_wait=not wait,
        quiet=not progress,
        no_progress=False,
    )
    own = records.RunOptions(
        plugin_path=str(path.resolve().parent if path else Path.cwd()),
        filter=filter,
        solo=solo,
        strict_devices=strict_devices,
        allow_plugins=allow_plugins,
    )
    asked = options.executed(args, str(path or BUILT), own)
    groups = runner.draft(chosen, own)
    plan, found = carry_out(
        lambda observer: runner.start(chosen, groups, asked, observer, os.environ),
        args,
        make_console(args, stderr=True),
    )
    if found.manifest.status == "interrupted":
        again = f"mnist-bench run -o {output_dir} --resume {plan.folder.run_id}"
        raise Interrupted(f"interrupted; what was finished is kept: go on with {again}")
    return Run(plan.folder)
