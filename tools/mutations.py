"""Breaks the library in ten places, one after the other, and shows that a fast test fails for each.

    python -m tools.mutations [NAME ...]

Works on a copy. The exit status is 1 where a change goes unnoticed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutation(NamedTuple):
    """A change that breaks the library.

    Attributes:
        name: what it breaks.
        file: path in the package.
        code: text of the file, which occurs once.
        broken: text instead.
        tests: what must fail, as arguments of pytest.
    """

    name: str
    file: str
    code: str
    broken: str
    tests: str


MUTATIONS = (
    Mutation(
        "a sign",
        "training/muon.py",
        "variable.assign(variable - rate * (ops.reshape",
        "variable.assign(variable + rate * (ops.reshape",
        "tests/training/test_muon.py",
    ),
    Mutation(
        "a padding",
        "layers/convolution.py",
        "    if strides == 1:\n        return True",
        "    if strides >= 1:\n        return True",
        "tests/layers/test_convolution.py",
    ),
    Mutation(
        "an epsilon",
        "layers/normalization.py",
        "EPSILON = 1e-5",
        "EPSILON = 1e-3",
        "tests/layers/test_parts.py tests/families/test_golden.py",
    ),
    Mutation(
        "a weight decay",
        "training/optimizers.py",
        '(on == "all" or len(variable.shape) >= 2)',
        '(on == "all" or len(variable.shape) >= 1)',
        "tests/training/test_optimizers.py",
    ),
    Mutation(
        "a seed",
        "data/pipelines.py",
        "tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])",
        "tf.stack([tf.constant(seed, tf.int64), tf.zeros_like(tf.cast(epoch, tf.int64))])",
        "tests/data/test_pipelines.py",
    ),
    Mutation(
        "a mask",
        "layers/fast/sums.py",
        "tf.where(outputs > 0,",
        "tf.where(outputs >= 0,",
        "tests/layers/test_activation.py",
    ),
    Mutation(
        "a rename",
        "files.py",
        'aside = path.with_name(f".partial-{path.name}")\n    _remove(aside)',
        "aside = path",
        "tests/export/test_savedmodel.py tests/weights/test_format.py tests/training/test_callbacks.py",
    ),
    Mutation("a lock", "files.py", "lock.acquire(timeout=0)", "pass", "tests/training/test_locking.py"),
    Mutation(
        "a clip",
        "training/optimizers.py",
        'kwargs["global_clipnorm"] = clip',
        'kwargs["global_clipnorm"] = 1e9',
        "tests/training/test_optimizers.py",
    ),
    Mutation(
        "a label order",
        "data/folders.py",
        "return tuple(sorted(names, key=files.natural))",
        "return tuple(sorted(names, key=files.natural, reverse=True))",
        "tests/data/test_folders.py",
    ),
)


def survives(mutation: Mutation, copy: Path) -> bool:
    """Whether the tests pass on a broken copy of the repository."""
    file = copy / "keras_deepnets" / mutation.file
    whole = file.read_text(encoding="utf-8")
    if whole.count(mutation.code) != 1:
        raise SystemExit(
            f"{mutation.name}: {mutation.file} holds its code {whole.count(mutation.code)} times; bring it up to date."
        )
    file.write_text(whole.replace(mutation.code, mutation.broken), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutation.tests.split()]
    run = subprocess.run(
        command, cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True, check=False
    )
    file.write_text(whole, encoding="utf-8")
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    print(
        f"{mutation.name:15} {'SURVIVED' if run.returncode == 0 else failed[0] if failed else run.stdout[-200:]}",
        flush=True,
    )
    return run.returncode == 0


def main(names: list[str]) -> int:
    """Tries the mutations of these names, or all."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "*.egg-info", "__pycache__"))
        chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
        return int(sum(survives(mutation, copy) for mutation in chosen) > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
