"""What tests of the page share: those of the server, its models too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "serve"))
