"""Without Apache Beam."""

import pytest

import keras_deepnets as kd
from keras_deepnets.batch import predicting
from keras_deepnets.errors import InputError


def test_the_extra_is_named(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(predicting, "find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        kd.batch.predict_many(model, [photos], tmp_path / "out")
    assert str(error.value).endswith('not installed here: pip install "keras-deepnets[beam]"')
    assert not (tmp_path / "out").exists()
