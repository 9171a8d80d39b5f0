"""``python -m daso`` is the command line."""

import sys

from daso.cli import main

sys.exit(main())
