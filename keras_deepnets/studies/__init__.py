"""The experiments of the papers as studies: tables of runs, with a claim and a verdict.

`load` reads a built-in study or a YAML file. `run` trains its runs and writes a table, a figure and the verdict. Importing
this package imports neither TensorFlow nor Matplotlib.
"""

from __future__ import annotations

from keras_deepnets.studies.definition import Study
from keras_deepnets.studies.plan import PlannedRun, plan
from keras_deepnets.studies.reading import load, names
from keras_deepnets.studies.runner import run
from keras_deepnets.studies.verdict import Outcome

__all__ = ["Outcome", "PlannedRun", "Study", "load", "names", "plan", "run"]
