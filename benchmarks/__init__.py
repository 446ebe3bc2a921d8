"""Measurements for the development of the library: run from the top of the repository, e.g. ``python -m benchmarks.depth``."""
