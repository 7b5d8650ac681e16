"""``python -m snnlearn``: the same as the command ``snnlearn``."""

from snnlearn.cli import main

raise SystemExit(main())
