"""Reports of runs: pictures by name, one HTML file for a run or a study, comparisons, and the tables of the papers.

Importing this package imports neither Keras nor Matplotlib.
"""

from __future__ import annotations

from keras_deepnets.reports.comparing import compare
from keras_deepnets.reports.plotting import KINDS, plot
from keras_deepnets.reports.reporting import report
from keras_deepnets.reports.runs import RunSummary, find_runs, read_run
from keras_deepnets.reports.study_report import is_study
from keras_deepnets.reports.tables import Table, tables

__all__ = ["KINDS", "RunSummary", "Table", "compare", "find_runs", "is_study", "plot", "read_run", "report", "tables"]
