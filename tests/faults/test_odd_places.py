"""The program works in odd places as in any other."""

from __future__ import annotations

import os
import sys

import pytest
from fault_kit import Bench


@pytest.mark.skipif(sys.platform == "darwin", reason="every name is Unicode there")
def test_a_folder_whose_name_is_no_unicode(bench: Bench) -> None:
    bench.folder = bench.folder / os.fsdecode(b"caf\xe9")
    bench.results = bench.folder / "results"
    bench.folder.mkdir()
    bench.write("", ["good"])
    done = bench.run()
    assert done.code == 0, done
    (trial,) = bench.trials()
    assert trial["status"] == "ok"
    assert bench.run("--resume", "latest").code == 0
