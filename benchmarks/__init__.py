"""Benchmarks for developing the library. Run them from the top of the repository, e.g. ``python -m benchmarks.depth``."""
