"""Looking things up: what is printed, and without TensorFlow."""

import re
import subprocess
import sys

import pytest

import keras_deepnets as kd

pytestmark = pytest.mark.integration


def fresh(*words, code):
    """A command in an interpreter of its own."""
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "words",
    [
        "list",
        "list --json",
        "--help",
        "info resnet50 --json",
        "--version",
        "predict nosuch x.png",
        "export --help",
        "export nosuch out --format savedmodel --top-k 2 --image-size 224",
        "serving-config nosuch",
    ],
)
def test_looking_up_loads_no_tensorflow(words):
    code = (
        "import sys; from keras_deepnets.cli import main; main(sys.argv[1:]);"
        "sys.exit(', '.join({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = fresh(*words.split(), code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout or re.search(r"error: nosuch (does not exist|holds no version)", done.stderr)


def test_list_prints_a_row_for_each_network(cli):
    lines = cli("list").out.splitlines()
    assert lines[0].split("  ")[0] == "name"
    assert [line.split()[0] for line in lines[1:]] == kd.list_models()
    (row,) = [line for line in lines if line.startswith("resnet20 ")]
    assert row.split()[:7] == ["resnet20", "ResNet", "cifar10", "20", "269,722", "0.0406", "G"]
    assert row.endswith("8.75 %, CIFAR-10 test")


def test_list_filters(cli):
    words = ("list", "ResNet1*", "--family", "resnet", "--dataset", "imagenet2012", "--json")
    assert [row["name"] for row in cli(*words).json] == ["resnet18", "resnet101", "resnet152"]
    families = {row["family"] for row in cli("list", "--family", "plainnet", "--json").json}
    assert families == {"PlainNet"}


def test_list_as_json_has_the_facts(cli):
    (row,) = cli("list", "resnet50", "--json").json
    assert row["parameters"] == 25_557_032
    assert row["depth"] == 50
    assert row["input_shape"] == [224, 224, 3]


def test_info_prints_facts_and_options(cli):
    lines = cli("info", "ResNet20").out.splitlines()
    assert lines[0] == "resnet20"
    assert "parameters       269,722" in lines
    (option,) = [line for line in lines if line.startswith("shortcut ")]
    assert option.split()[1] == "'A'"
    assert "zero-padded identity" in option


def test_info_as_json(cli):
    values = cli("info", "resnet50", "--json").json
    assert values["flops"] == kd.model_info("resnet50").flops
    defaults = {option["name"]: option["default"] for option in values["options"]}
    assert (
        defaults.items()
        >= {"shortcut": "B", "downsample": "1x1", "zero_init_residual": False, "stochastic_depth": 0.0}.items()
    )
    assert all(option["description"] for option in values["options"])


def test_info_of_every_network(cli):
    for name in kd.list_models():
        assert cli("info", name).out.splitlines()[0] == name
        assert cli("info", name, "--json").json["name"] == name


def test_info_draws_the_network(cli, tmp_path):
    path = tmp_path / "net.svg"
    assert cli("info", "resnet20", "--plot", path).out.startswith("resnet20")
    assert path.read_bytes().count(b"<path") > 20
    assert "must end in .png, .svg, .pdf" in cli("info", "resnet20", "--plot", tmp_path / "net.gif").error
    assert "there is no folder" in cli("info", "resnet20", "--plot", tmp_path / "no" / "net.png").error
    assert [each.name for each in tmp_path.iterdir()] == ["net.svg"]


def test_version(cli):
    assert cli("--version").out.startswith(f"keras-deepnets {kd.__version__} (tensorflow 2.")


def test_no_command_prints_the_help(cli):
    done = cli()
    assert done.status == 0
    assert done.out == cli("--help").out
    for command in ("list", "info", "train", "evaluate", "predict", "export", "demo"):
        assert f"│ {command} " in done.out


def test_unknown_names(cli):
    assert cli("info", "resnet51").error.startswith("Unknown model 'resnet51'. Did you mean resnet")
    assert cli("list", "--family", "alexnet").error.startswith("Unknown family 'alexnet'. The families: ")
    assert cli("list", "--dataset", "cifar11").error.startswith("No network was designed for dataset 'cifar11'.")
    assert (
        cli("list", "alexnet*", "--json").error
        == "No network name matches 'alexnet*'; `keras-deepnets list` prints all of them."
    )


def test_list_published_weights(cli):
    lines = cli("list", "--weights").out.splitlines()
    assert lines[0].split() == ["network", "weights", "classes", "pixels", "top-1", "licence"]
    assert len(lines) - 1 == len(kd.weights.list_weights()) > 220
    (row,) = [line.split() for line in lines if line.startswith("resnet50 ") and "imagenet1k_v2" in line]
    assert row == ["resnet50", "torchvision/imagenet1k_v2", "1000", "224", "80.86", "%", "BSD-3-Clause"]
    assert any(line.split()[:2] == ["ResNet", "timm/resnet50d.ra2_in1k"] for line in lines)
    values = cli("list", "ResNet50", "--weights", "--json").json
    assert [value["name"] for value in values] == list(kd.model_info("resnet50").weights)
    names = {value["name"] for value in cli("list", "akamaster/*", "--weights", "--dataset", "cifar10", "--json").json}
    assert names == {"akamaster/cifar10"}
    assert {card.constructor for card in kd.weights.list_weights("timm/densenet*")} == {"DenseNet"}
    assert "No published weights match 'plainnet18'" in cli("list", "plainnet18", "--weights").error
