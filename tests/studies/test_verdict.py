"""Verdicts: the effect against the spread, with numbers worked out by hand."""

import math

import pytest

from keras_deepnets.studies import results, verdict
from keras_deepnets.studies.definition import Search
from tests.studies.common import TINY, result, tiny

IMAGES = {"train": 400, "test": 100}


def judged(study, values):
    """Verdict for training errors of the plain and the residual network, one for each seed."""
    found = [
        result(net=net, seed=seed, train_error=error)
        for net, errors in values.items()
        for seed, error in enumerate(errors)
    ]
    return verdict.judge(study, results.groups(found), IMAGES)


def test_an_effect_above_the_spread_is_shown(tmp_path):
    overall, (part,) = judged(tiny(tmp_path), {"plain": [50, 54], "res": [40, 46]})
    assert part.effect == pytest.approx(52 - 43)
    # Standard deviations (n - 1): sqrt(8) and sqrt(18).
    assert part.spread == pytest.approx(math.sqrt(8 + 18))
    assert overall == part.outcome == "shown"
    assert part.why == "training error 43.00 against 52.00 %, spread 5.10"


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ({"plain": [50, 54], "res": [45, 51]}, "not shown"),  # 4 against sqrt(8 + 18)
        ({"plain": [40, 46], "res": [50, 54]}, "the opposite"),
        ({"plain": [45, 51], "res": [50, 54]}, "not shown"),
        ({"plain": [50, 54]}, "not shown"),  # the others failed
    ],
)
def test_outcomes(tmp_path, values, outcome):
    assert judged(tiny(tmp_path), values)[0] == outcome


def test_with_one_seed_the_spread_is_that_of_counting_images(tmp_path):
    _, (part,) = judged(tiny(tmp_path), {"plain": [50], "res": [20]})
    assert part.spread == pytest.approx(100 * math.sqrt((0.5 * 0.5 + 0.2 * 0.8) / 400))
    assert part.why.endswith("with one seed")


def test_a_margin_allows_the_lower_side_to_be_worse(tmp_path):
    study = tiny(tmp_path, verdict=[TINY["verdict"][0] | {"margin": 8}])
    assert judged(study, {"plain": [50, 50], "res": [57, 57]})[0] == "shown"
    assert judged(study, {"plain": [50, 50], "res": [59, 59]})[0] == "the opposite"


def test_a_number_is_a_side_without_spread(tmp_path):
    study = tiny(tmp_path, verdict=[TINY["verdict"][0] | {"higher": 45}])
    overall, (part,) = judged(study, {"res": [40, 42]})
    assert (overall, part.effect, part.spread) == ("shown", pytest.approx(4), pytest.approx(math.sqrt(2)))


def test_the_claim_is_shown_only_if_all_its_parts_are(tmp_path):
    other = TINY["verdict"][0] | {"lower": {"net": "plain"}, "higher": {"net": "res"}}
    study = tiny(tmp_path, verdict=[TINY["verdict"][0], other])
    overall, parts = judged(study, {"plain": [50, 50], "res": [40, 40]})
    assert (overall, [part.outcome for part in parts]) == ("not shown", ["shown", "the opposite"])
    study = tiny(tmp_path, verdict=[other])
    assert judged(study, {"plain": [50, 50], "res": [40, 40]})[0] == "the opposite"


def test_the_best_trial_of_a_search_counts():
    found = [
        result(net="plain", trial=trial, seed=seed, train_loss=loss)
        for trial, losses in ((1, (0.5, 0.9)), (2, (0.6, 0.6)), (3, (math.nan, 0.1)))
        for seed, loss in enumerate(losses)
    ]
    (group,) = results.groups(found, Search(3, 0, "train_loss", {}, {}))
    assert [one.labels["trial"] for one in group.results] == [2, 2]  # 0.7, 0.6 and NaN on average


def test_means_and_spreads_in_the_table(tmp_path):
    study = tiny(tmp_path, measures=["train_error", "parameters", "test_loss"])
    found = [result(net="res", seed=seed, train_error=error) for seed, error in enumerate((40, 44, 48))]
    assert results.columns(study) == ["net", "runs", "train_error", "parameters", "test_loss"]
    assert results.table(study, results.groups(found)) == [["res", "3", "44.00 ± 4.00", "100,000", "–"]]
