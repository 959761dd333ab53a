"""`python -m convmixer`: the console command."""

from __future__ import annotations

import sys

from convmixer.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
