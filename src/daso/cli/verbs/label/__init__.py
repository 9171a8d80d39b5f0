"""``daso label``: label images in the browser."""

from __future__ import annotations

from functools import partial

from daso.cli.terminal.counters import tell
from daso.cli.verbs.label.command import LabelCommand
from daso.errors import import_extra
from daso.files import check_writable


def run(command: LabelCommand) -> int:
    """Serve the page until Ctrl-C."""
    shows_page = not command.apply and command.export is None
    for package in ("starlette", "uvicorn") if shows_page else ():
        import_extra(package, "label", "daso label needs")

    from daso.cli.verbs.label.page import label, placed

    place = placed(command)
    if command.out is not None:
        check_writable(command.out)

    from daso.data.journal import Journal
    from daso.data.labeling import export_labels, open_for_labeling, sort_files, unsort_files
    from daso.data.listing import Reading

    reading = Reading(place.size, data=place.data, folders=place.folders)
    data = open_for_labeling(place.source, reading)
    for note in data.listing.notes:
        tell(f"note: {note}")
    for path, reason in data.listing.skipped:
        tell(f"skipped {path}: {reason}")
    if command.export is not None:
        for note in export_labels(Journal.read(data.journal), data, command.export):
            if note not in data.listing.notes:
                tell(f"note: {note}")
        print(command.export)
        return 0
    journal = Journal.open(data.journal)
    try:
        if command.apply:
            sort = unsort_files if command.undo else partial(sort_files, how=command.how)
            for note in sort(journal, data):
                tell(note)
            return 0
        label(place, data, journal, command)
    finally:
        journal.close()
        if shows_page and journal.entries:
            tell(f"{len(journal.entries):,} entries are kept in {journal.path}")
    return 0
