"""The suites run under pytest as under `python -m tests.faults`: the toy that they train lies beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "train"))
