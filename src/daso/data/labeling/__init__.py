"""Data sets as ``daso label`` opens them, and what becomes of its labels: a table, or folders."""

from daso.data.labeling.export import export_labels as export_labels
from daso.data.labeling.opened import LabelingData as LabelingData
from daso.data.labeling.opened import open_for_labeling as open_for_labeling
from daso.data.labeling.sorting import sort_files as sort_files
from daso.data.labeling.sorting import unsort_files as unsort_files
