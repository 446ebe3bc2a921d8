# TensorFlow ships no types, and the stubs that pyright brings lack much of it. For the type checkers it is untyped.
from typing import Any

def __getattr__(name: str) -> Any: ...
