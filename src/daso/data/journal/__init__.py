"""The labels given in the page of ``daso label``, and what readers make of them."""

from daso.data.journal.entries import Action as Action
from daso.data.journal.entries import Entry as Entry
from daso.data.journal.entries import Journal as Journal
from daso.data.journal.entries import journal_path as journal_path
