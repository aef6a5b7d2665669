"""``python -m tests.golden [ARGUMENTS OF PYTEST]``: stores every output anew; look at what ``git diff`` says then."""

import os
import sys
from pathlib import Path

import pytest

os.environ["UPDATE_GOLDEN"] = "1"
sys.exit(pytest.main([str(Path(__file__).parent), "-q", *sys.argv[1:]]))
