"""``daso label``: label images in the browser."""

from daso.cli.verbs.label.command import run as run
