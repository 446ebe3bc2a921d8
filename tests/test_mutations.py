"""The mutation check breaks code that exists. Running it takes minutes: `python -m tools.mutations`."""

import pytest

from tools.mutations import MUTATIONS, ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_code_occurs_once(mutation):
    assert (ROOT / "keras_deepnets" / mutation.file).read_text(encoding="utf-8").count(mutation.code) == 1
    assert mutation.code != mutation.broken
    assert all((ROOT / path).is_file() for path in mutation.tests.split())
