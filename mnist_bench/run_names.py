"""Which folders of an output folder are runs. Standard library only: some commands must not wait for more."""

from __future__ import annotations

from pathlib import Path

MANIFEST = "manifest.json"


def known_runs(output_dir: Path) -> tuple[str, ...]:
    """The names of the runs in a results folder, oldest first (their ids begin with the time)."""
    try:
        entries = list(output_dir.iterdir())
    except OSError:
        return ()
    runs = [e.name for e in entries if not e.name.startswith(".") and not e.is_symlink() and (e / MANIFEST).is_file()]
    return tuple(sorted(runs))
