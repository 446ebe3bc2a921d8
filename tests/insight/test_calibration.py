import numpy as np
import pytest
from PIL import Image

from keras_deepnets.errors import InputError
from keras_deepnets.insight import calibration, draw_calibration
from keras_deepnets.insight.calibrating import _figure

# Five images of two classes. The predicted class and its probability: 0 with 0.9, 0.8, 0.55; 1 with 0.95, 0.6.
PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.55, 0.45], [0.05, 0.95], [0.4, 0.6]])
LABELS = np.array([0, 1, 0, 1, 0])


def test_by_hand():
    found = calibration(PROBABILITIES, LABELS, bins=5)
    # Bins (0.4, 0.6]: 0.55 right and 0.6 wrong; (0.6, 0.8]: 0.8 wrong; (0.8, 1]: 0.9 and 0.95, both right.
    assert found.counts.tolist() == [0, 0, 2, 1, 2]
    np.testing.assert_allclose(found.confidence[2:], [0.575, 0.8, 0.925])
    np.testing.assert_allclose(found.accuracy[2:], [0.5, 0.0, 1.0])
    assert np.isnan(found.confidence[:2]).all() and np.isnan(found.accuracy[:2]).all()
    assert found.error == pytest.approx((2 * 0.075 + 1 * 0.8 + 2 * 0.075) / 5)


def test_certainty_belongs_to_the_last_bin():
    found = calibration(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    assert found.counts[-1] == 2 and found.error == pytest.approx(0.5)


def test_predictions_that_are_as_right_as_they_claim():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(4), 20_000)
    labels = (probabilities.cumsum(1) > random.random((20_000, 1))).argmax(1)
    assert calibration(probabilities, labels).error < 0.01
    # As sure, but right only by chance.
    assert calibration(probabilities, random.integers(0, 4, 20_000)).error > 0.2


@pytest.mark.parametrize(
    ("probabilities", "labels", "bins", "says"),
    [
        (PROBABILITIES, LABELS[:4], 5, "give \\[n, classes\\] and \\[n\\]"),
        (PROBABILITIES[:0], LABELS[:0], 5, "give \\[n, classes\\]"),
        (PROBABILITIES * 9, LABELS, 5, "softmax"),
        (PROBABILITIES, LABELS, 0, "bins=0"),
    ],
)
def test_bad_input(probabilities, labels, bins, says):
    with pytest.raises(InputError, match=says):
        calibration(probabilities, labels, bins)


def test_the_diagram(tmp_path):
    found = calibration(PROBABILITIES, LABELS, bins=5)
    above, below = _figure(found, None).axes
    assert [round(bar.get_height()) for bar in above.patches] == [50, 0, 100]
    assert [round(bar.get_height()) for bar in below.patches] == [0, 0, 2, 1, 2]
    assert above.get_title(loc="left").startswith("expected calibration error 22.0 %")
    with Image.open(draw_calibration(found, tmp_path / "calibration.png", "two")) as picture:
        assert picture.size == (840, 900)
