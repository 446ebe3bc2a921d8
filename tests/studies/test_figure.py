"""The figure of a study: every line and point is a number of the results."""

import numpy as np

from keras_deepnets.studies import figure, results
from tests.studies.common import TINY, result, tiny


def drawn(study, found):
    return figure._figure(study, results.groups(found), "not shown", str)


def two_by_two(tmp_path, drawings):
    rows = [{"network": "{net}net", "net": ["plain", "res"], "depth": [8, 14], "options": {"depth": "{depth}"}}]
    sides = {"lower": {"net": "res", "depth": 14}, "higher": {"net": "plain", "depth": 14}}
    study = tiny(tmp_path, runs=rows, options={"stem": "cifar"}, verdict=[TINY["verdict"][0] | sides], figure=drawings)
    found = [
        result(
            net=net,
            depth=depth,
            seed=seed,
            train_error=start + depth + seed,
            test_error=start + depth + 20,
            parameters=1e6 * depth,
        )
        for net, start in (("plain", 30), ("res", 10))
        for depth in (8, 14)
        for seed in (0, 2)
    ]
    return study, found


def test_curves_are_means_over_seeds_with_the_training_error_thin(tmp_path):
    study, found = two_by_two(tmp_path, [{"draw": "curves", "panels": "net", "groups": "depth"}])
    plain, res = drawn(study, found).axes
    assert (plain.get_title(loc="left"), res.get_title(loc="left")) == ("net: plain", "net: res")
    assert plain.get_xlabel() == "epoch" and plain.get_ylabel() == "error (%)"
    thin, bold = plain.lines[:2]  # depth 8
    np.testing.assert_allclose(thin.get_ydata(), [90, 70, 39])  # 38 and 40
    np.testing.assert_allclose(bold.get_ydata(), [92, 80, 58])
    assert thin.get_linewidth() < bold.get_linewidth()
    assert thin.get_color() == bold.get_color() != plain.lines[2].get_color()
    edges = plain.collections[0].get_paths()[0].vertices[:, 1]
    assert np.isclose(edges, 39 - np.sqrt(2)).any() and np.isclose(edges, 39 + np.sqrt(2)).any()
    texts = [text.get_text() for text in res.get_legend().get_texts()]
    assert texts == ["depth 8", "depth 14", "training error", "test error"]


def test_the_legend_stands_beside_the_axes(tmp_path):
    study, found = two_by_two(tmp_path, [{"draw": "curves", "groups": "depth"}])
    picture = drawn(study, found)
    picture.draw_without_rendering()
    (axes,) = picture.axes
    assert axes.get_legend().get_window_extent().x0 > axes.get_window_extent().x1


def test_points_have_bars_over_seeds(tmp_path):
    study, found = two_by_two(tmp_path, [{"draw": "points", "x": "depth", "y": "train_error", "groups": "net"}])
    (axes,) = drawn(study, found).axes
    plain, res = axes.containers
    np.testing.assert_allclose(plain.lines[0].get_xydata(), [[8, 39], [14, 45]])
    np.testing.assert_allclose(res.lines[0].get_xydata(), [[8, 19], [14, 25]])
    heights = [segment[1, 1] - segment[0, 1] for segment in plain.lines[2][0].get_segments()]
    np.testing.assert_allclose(heights, 2 * np.sqrt(2))
    assert axes.get_ylabel() == "training error (%)"


def test_names_on_the_axis_are_not_joined(tmp_path):
    study, found = two_by_two(tmp_path, [{"draw": "points", "x": "net", "groups": "depth"}])
    (axes,) = drawn(study, found).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["plain", "res"]
    assert {container.lines[0].get_linestyle() for container in axes.containers} == {"None"}


def test_published_points_are_hollow_and_measured_ones_filled(tmp_path):
    drawing = {"draw": "points", "x": "parameters", "y": "test_error", "groups": "net", "log": ["x", "y"]}
    study, found = two_by_two(tmp_path, [drawing | {"published": ["resnet20", "densenetbc100_12"]}])
    (axes,) = drawn(study, found).axes
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    points = np.array([line.get_xydata()[0] for line in hollow], "float64")
    np.testing.assert_allclose(points, [[0.27, 8.75], [0.77, 4.51]], rtol=0.01)
    assert axes.containers[0].lines[0].get_markerfacecolor() != "white"
    np.testing.assert_allclose(np.array(axes.containers[0].lines[0].get_xdata(), "float64"), [8, 14])  # millions
    assert axes.get_xlabel() == "parameters (millions)" and axes.get_xscale() == axes.get_yscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        *("plain", "res", "ResNet", "DenseNet", "measured here", "published")
    ]


def test_files_are_written_in_both_formats(tmp_path):
    study, found = two_by_two(tmp_path, [{"draw": "curves", "groups": "depth"}])
    paths = [tmp_path / "figure.png", tmp_path / "figure.svg"]
    figure.draw(study, results.groups(found), "shown", paths)
    assert paths[0].read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in paths[1].read_text()


def test_heat_maps_are_means_over_seeds(tmp_path):
    study = tiny(tmp_path, figure=[{"draw": "feature_reuse"}])
    maps = [
        {"block 1": [[1.0, 0.2, 0.5], [None, 1.0, 1.0], [None, None, 0.1]]},
        {"block 1": [[1.0, 0.4, 0.5], [None, 1.0, 1.0], [None, None, 0.3]]},
    ]
    found = [result(net="res", seed=seed, maps=one) for seed, one in enumerate(maps)]
    axes = drawn(study, found).axes[0]
    shown = axes.images[0].get_array()
    np.testing.assert_allclose(shown.filled(np.nan), [[1, 0.3, 0.5], [np.nan, 1, 1], [np.nan, np.nan, 0.2]])
    assert axes.get_title(loc="left") == "block 1"
