"""Definitions of studies: what they say, and errors that name file, key, rule and way out."""

import pytest

from keras_deepnets import studies
from keras_deepnets.errors import InputError
from tests.studies.common import TINY, tiny, written


def test_a_row_with_lists_becomes_a_row_for_each_combination(tmp_path):
    rows = [{"network": "{net}net{depth}", "net": ["plain", "res"], "depth": [20, 32], "options": {}}]
    sides = {"lower": {"net": "res", "depth": 32}, "higher": {"net": "plain", "depth": 20}}
    study = tiny(tmp_path, runs=rows, options={}, verdict=[TINY["verdict"][0] | sides], seeds=[3, 5])
    assert [row.network for row in study.rows] == ["plainnet20", "plainnet32", "resnet20", "resnet32"]
    assert [run.name for run in studies.plan(study)][:4] == [
        "plain-20-seed3",
        "plain-32-seed3",
        "res-20-seed3",
        "res-32-seed3",
    ]
    assert [run.seed for run in studies.plan(study)] == [3] * 4 + [5] * 4


def test_a_text_that_is_a_label_keeps_its_type(tmp_path):
    rows = [
        {
            "network": "resnet",
            "net": "res",
            "rate": [0.1, 0.5],
            "options": {"depth": 8},
            "set": {"learning_rate": "{rate}"},
        }
    ]
    sides = {"lower": {"rate": 0.1}, "higher": {"rate": 0.5}}
    study = tiny(tmp_path, runs=rows, verdict=[TINY["verdict"][0] | sides])
    assert [row.settings["learning_rate"] for row in study.rows] == [0.1, 0.5]
    assert study.rows[0].settings["epochs"] == 2  # of the whole study
    assert study.rows[0].options == {"stem": "cifar", "depth": 8}


def test_overrides_and_the_paper(tmp_path):
    file = written(tmp_path / "own.yaml", paper={"limit": None, "seeds": 4, "set": {"epochs": 100}})
    own = studies.load(file, data="mnist", seeds=2, set={"epochs": 1})
    assert (own.name, own.data, own.seeds, own.limit) == ("own", "mnist", (0, 1), 64)
    assert own.rows[0].settings == TINY["set"] | {"epochs": 1}
    paper = studies.load(file, paper=True)
    assert (paper.limit, paper.seeds, dict(paper.rows[0].settings)) == (None, (0, 1, 2, 3), {"epochs": 100})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"title": ...}, "key title: the key is missing; give a line of text."),
        ({"sedes": 3}, "key sedes: there is no such key, did you mean 'seeds'? keys are title, source"),
        ({"seeds": 0}, "key seeds: 0 must be a number of seeds of at least 1, or a list of different seeds."),
        ({"seeds": [1, 1]}, "key seeds: [1, 1] must be a number of seeds"),
        ({"limit": "many"}, "key limit: 'many' must be a whole number of at least 1; leave it out for all images."),
        ({"runs": []}, "key runs: [] must be a list with at least one entry; give a list of rows"),
        ({"runs": [{"net": "res"}]}, "key runs[0]: the key network is missing; give the name of a network"),
        (
            {"runs": [{"network": "{depth}", "net": "a"}]},
            "key runs[0]: '{depth}' names a label that the row does not have",
        ),
        ({"runs": [{"network": "resnet", "seed": 1}]}, "key runs[0].seed: the name is taken; choose another name"),
        (
            {"runs": [{"network": "resnet", "seconds": 1}]},
            "key runs[0].seconds: the name is taken; choose another name",
        ),
        (
            {"runs": [{"network": "resnet", "net": ["res", "plain", "plain!"]}]},
            "row plain-seed0: two rows have the same folder; give them labels that differ in letters or digits.",
        ),
        ({"seeds": [{}]}, "key seeds: [{}] must be a number of seeds"),
        ({"measures": [["train_error"]]}, "key measures: there is no measure ['train_error']"),
        (
            {"figure": [{"draw": "curves", "groups": ["net"]}]},
            "key figure[0].groups: ['net'] must be one of net, network",
        ),
        (
            {"runs": [{"network": "resnet", "net": [True]}]},
            "key runs[0].net: [True] must be a text, a number or a list",
        ),
        (
            {"runs": [{"network": "resnet", "net": "a"}, {"network": "resnet", "depth": 2}]},
            "key runs[1]: its labels are depth, those of runs[0] are net; give all rows the same.",
        ),
        (
            {"runs": [{"network": "resnet", "net": "a"}, {"network": "plainnet", "net": "a"}]},
            "key runs[1]: an earlier row has the same labels (net=a); add a label that tells them apart.",
        ),
        ({"runs": [{"network": "resmet", "net": ["plain", "res"]}]}, "row plain-seed0: "),
        ({"options": {"stem": "cifar", "depth": 9}}, "row plain-seed0: PlainNet: depth=9"),
        ({"options": {"colour": 1}}, "row plain-seed0: plainnet has no option 'colour'; options are blocks, depth"),
        ({"set": {"epoch": 2}}, "row plain-seed0: A recipe has no field 'epoch'. Did you mean 'epochs'?"),
        ({"recipe": "fats"}, "row plain-seed0: There is no recipe 'fats'. Did you mean 'fast'?"),
        ({"measures": ["error"]}, "key measures: there is no measure 'error'; measures are train_error, test_error"),
        ({"figure": [{"draw": "pie"}]}, "key figure[0].draw: 'pie' must be one of curves, points, feature_reuse."),
        (
            {"figure": [{"draw": "points"}]},
            "key figure[0].x: the key is missing; give a label or a measure: net, network",
        ),
        (
            {"figure": [{"draw": "curves", "groups": "depth"}]},
            "key figure[0].groups: 'depth' must be one of net, network",
        ),
        (
            {"figure": [{"draw": "points", "x": "net", "published": ["resnet20"]}]},
            "key figure[0].published: needs x: parameters or multiply_adds, and y: test_error.",
        ),
        (
            {"figure": [{"draw": "points", "x": "parameters", "y": "test_error", "published": ["plainnet20"]}]},
            "key figure[0].published: plainnet20 has no published error; leave it out.",
        ),
        ({"verdict": [{"says": "a"}]}, "key verdict[0].measure: the key is missing; a comparison has says, measure"),
        (
            {"verdict": [TINY["verdict"][0] | {"lower": {"net": "wide"}}]},
            "key verdict[0].lower: {'net': 'wide'} selects 0 rows of runs; give labels that select exactly one.",
        ),
        (
            {"verdict": [TINY["verdict"][0] | {"lower": 1, "higher": 2}]},
            "key verdict[0]: lower and higher are both numbers",
        ),
        (
            {"verdict": [TINY["verdict"][0] | {"margin": -1}]},
            "key verdict[0].margin: -1 must be a number of at least 0.",
        ),
        ({"search": {"by": "train_loss"}}, "key search.trials: the key is missing; give the number of trials"),
        (
            {"search": {"trials": 2, "options": {"gate_bias": {"among": [-1]}}}},
            "key search.options.gate_bias: none of the networks has this option; leave it out.",
        ),
        ({"search": {"trials": 2}}, "key search: nothing is drawn; give ranges in set or options"),
        (
            {"search": {"trials": 2, "set": {"learning_rate": {"from": 1, "to": 0.1}}}},
            "key search.set.learning_rate: {'from': 1, 'to': 0.1} must be {from: a, to: b} with 0 < a < b",
        ),
    ],
)
def test_errors_name_file_key_rule_and_way_out(tmp_path, changed, message):
    with pytest.raises(InputError) as caught:
        tiny(tmp_path, **changed)
    text = str(caught.value)
    assert text.startswith(f"Study {tmp_path / 'tiny.yaml'}, key ")
    assert message in text
    assert "\n" not in text


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"Cannot read study .*none.yaml: No such file"):
        studies.load(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("title: [a")
    with pytest.raises(InputError, match=r"broken.yaml is not YAML: while parsing"):
        studies.load(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(InputError, match=r"list.yaml must be keys with values"):
        studies.load(tmp_path / "list.yaml")
    with pytest.raises(
        InputError, match=r"There is no study 'degredation'. Did you mean 'degradation'\? Studies are: batchnorm"
    ):
        studies.load("degredation")
    with pytest.raises(InputError, match="key paper: the file has no such key; run the study without --paper"):
        studies.load(written(tmp_path / "own.yaml"), paper=True)


def test_a_random_search_draws_in_its_ranges_and_only_options_that_exist(tmp_path):
    search = {
        "trials": 40,
        "set": {"learning_rate": {"from": 0.001, "to": 0.1}},
        "options": {"gate_bias": {"among": [-1, -2]}, "activation": {"among": ["relu", "tanh"]}},
    }
    rows = [{"network": "{net}mlp", "net": ["highway", "plain"]}]
    sides = {"lower": {"net": "highway"}, "higher": {"net": "plain"}}
    changed = {"runs": rows, "options": {}, "verdict": [TINY["verdict"][0] | sides], "search": search}
    runs = studies.plan(tiny(tmp_path, **changed))
    assert runs == studies.plan(tiny(tmp_path, **changed))  # the same numbers each time
    rates = [run.settings["learning_rate"] for run in runs]
    assert all(0.001 <= rate <= 0.1 for rate in rates) and len(set(rates)) == 80
    # On a logarithmic scale, half of the rates are below the geometric mean.
    assert 25 < sum(rate < 0.01 for rate in rates) < 55
    assert {run.options["gate_bias"] for run in runs[:40]} == {-1, -2}
    assert all(set(run.options) == {"activation"} for run in runs[40:])
    assert [run.name for run in runs[:2]] == ["highway-trial1-seed0", "highway-trial2-seed0"]
