"""The built-in studies: each has a default and the paper's sizes, and compares what it claims to compare."""

import pytest

from keras_deepnets import facts, studies
from keras_deepnets.studies.published import published

NAMES = (
    *("batchnorm", "cardinality", "deep-supervision", "degradation", "feature-reuse"),
    *("highway-depth", "parameter-efficiency", "residual-units", "shortcuts", "stochastic-depth"),
)
# Recipes that reproduce the papers' runs.
PAPERS = {
    "batchnorm": {"ioffe2015_imagenet"},
    "cardinality": {"xie2016_imagenet"},
    "deep-supervision": {"lee2014_cifar"},
    "degradation": {"he2015_cifar"},
    "feature-reuse": {"huang2017_cifar"},
    "highway-depth": {"srivastava2015_mnist"},
    "residual-units": {"he2016_cifar"},
    "shortcuts": {"he2015_imagenet"},
    "stochastic-depth": {"huang2016_stochastic_depth"},
}


def test_these_studies_are_built_in():
    assert studies.names() == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_study_has_a_default_and_the_papers_sizes(name):
    default, paper = studies.load(name), studies.load(name, paper=True)
    assert default.source and default.claim.endswith(".") and default.title
    assert all(part.says.endswith(".") for part in (*default.verdict, *paper.verdict))
    assert default.limit or default.data == "digits"
    assert (paper.limit, paper.test) == (None, None)
    for row in paper.rows:
        assert "epochs" not in row.settings and "steps" not in row.settings  # the length is that of the recipe
    if name in PAPERS:
        assert {row.recipe for row in paper.rows} == PAPERS[name]


@pytest.mark.slow
def test_the_networks_of_the_cardinality_study_have_equal_multiply_adds():
    counts = {
        row.labels["change"]: facts.count(row.network, **row.options)["flops"]
        for row in studies.load("cardinality").rows
    }
    small = counts.pop("none")
    assert len(counts) == 4
    # Xie et al. 2016, table 4: about twice the multiply-adds of the first network.
    assert all(1.7 * small < count < 2 * small for count in counts.values())
    assert max(counts.values()) < 1.1 * min(counts.values())


def test_units_and_depths_of_the_residual_units():
    paper = studies.load("residual-units", paper=True)
    assert {(row.network, row.labels["unit"]) for row in paper.rows} == {
        (f"preactresnet{depth}", unit)
        for depth in (110, 164)
        for unit in (
            *("original", "bn_after_addition", "relu_before_addition"),
            *("relu_only_preactivation", "full_preactivation"),
        )
    }


@pytest.mark.parametrize(
    ("network", "parameters", "error"),
    [
        # Parameters in millions and errors with augmentation on CIFAR-10, from the tables of the papers.
        ("resnet20", 0.27, 8.75),
        ("preactresnet1001", 10.2, 4.62),
        ("nin", 0.97, 8.81),
        ("dsn", 0.97, 7.97),
        ("allcnn_c", 1.4, 7.25),
        ("densenetbc100_12", 0.8, 4.51),
        ("fractalnet21", 33.7, 4.60),
        ("maxoutcnn", 16.2, 9.38),
    ],
)
def test_published_errors(network, parameters, error):
    point = published(network)
    assert point.test_error == error
    assert point.parameters / 1e6 == pytest.approx(parameters, rel=0.05)
