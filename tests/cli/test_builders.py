"""Builders by name: on the command line, in the registry and in training."""

import json

import pytest

import keras_deepnets as kd
from keras_deepnets import registry
from keras_deepnets.benchmark.jobs import Job
from keras_deepnets.cli import benchmark

from .conftest import RECIPE

BUILDERS = [
    "ResNet",
    "PreActResNet",
    "ResNeXt",
    "WideResNet",
    "DenseNet",
    "Highway",
    "HighwayMLP",
    "FitNet",
    "VGG",
    "FractalNet",
    "PReLUNet",
    "PlainNet",
]
SMALL = ("--option", "stem=cifar", "--option", "depth=8")
NEEDS = "ResNet: give blocks, e.g. blocks=(3, 4, 6, 3), or a depth with stem='cifar'."


def test_the_registry_knows_builders_in_any_case():
    assert {*BUILDERS} <= {*registry.builders()}
    assert not {name.lower() for name in BUILDERS} & {*kd.list_models()}
    for name in BUILDERS:
        for text in (name, name.lower(), name.upper()):
            assert registry.constructor_of(text) is getattr(kd, name)
    model = kd.create_model("resnet", depth=8, stem="cifar", classes=3)
    assert model.output_shape == (None, 3)
    assert model.architecture["options"] == {"depth": 8, "stem": "cifar"}
    with pytest.raises(ValueError, match="give blocks"):
        kd.create_model("resnet", depth=8)
    with pytest.raises(TypeError, match="unknown option 'dept'"):
        kd.create_model("ResNet", dept=8)


def test_what_is_known_of_the_network_that_options_make():
    info = kd.model_info("ResNet", depth=20, stem="cifar", shortcut="A")
    named = kd.model_info("resnet20")
    for field in ("parameters", "flops", "depth", "input_shape", "classes", "dataset"):
        assert getattr(info, field) == getattr(named, field)
    assert (info.name, info.constructor, info.error, info.weights) == ("resnet", "ResNet", "", ())
    deep = kd.model_info("resnet", blocks=(3, 4, 6, 3), block="bottleneck", downsample="3x3", deep_stem=(32, 32, 64))
    assert deep.weights and all(name.startswith("timm/resnet50c") for name in deep.weights)
    changed = kd.model_info("resnet20", shortcut="B")
    assert changed.parameters > named.parameters == kd.model_info("resnet20", shortcut="A").parameters
    with pytest.raises(ValueError, match="give blocks"):
        kd.model_info("resnet")


def test_info_of_a_builder(cli):
    lines = cli("info", "ResNet").out.splitlines()
    assert lines[0] == "resnet" and not any(line.startswith(("depth  ", "parameters ")) for line in lines[:8])
    assert any(line.startswith("blocks ") for line in lines)
    assert lines[-1].startswith("A builder: `keras-deepnets info ResNet --option NAME=VALUE …`")
    values = cli("info", "resnet", "--json").json
    assert (values["depth"], values["parameters"], values["constructor"]) == (None, None, "ResNet")
    for name in BUILDERS:
        assert cli("info", name, "--json").json["options"]
    values = cli("info", "ResNet", *SMALL, "--json").json
    assert (values["depth"], values["parameters"]) == (8, 78_042)
    lines = cli("info", "ResNet", *SMALL).out.splitlines()
    assert next(line for line in lines if line.startswith("depth ")).split()[1] == "8"
    assert "option" in next(line for line in lines if line.endswith("meaning")).split()


def test_options_that_do_not_go(cli, patches, tmp_path):
    assert cli("info", "ResNet", "--option", "depth=8").error == NEEDS
    assert cli("info", "resnet20", "--option", "depth=8").error.startswith(
        "resnet20 has no option 'depth'; its options: "
    )
    assert "n+2" in cli("info", "ResNet", "--option", "stem=cifar", "--option", "depth=9").error
    run = ("--run-dir", tmp_path / "run")
    assert cli("train", "ResNet", "nosuchdata", *run).error == NEEDS
    assert cli("train", "resnet", patches, "--option", "depth=8", *run).error == NEEDS
    assert cli("benchmark", "ResNet", "--option", "depth=8").error == NEEDS
    assert "Did you mean resnet" in cli("train", "resnets", patches, *run).error
    picture = tmp_path / "net.png"
    assert cli("info", "ResNet", "--plot", picture).error == NEEDS
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_train_a_builder(cli, patches, tmp_path):
    words = ["--image-size", "8", *RECIPE, *SMALL, "--option", "filters=8,16,32", "--run-dir", tmp_path / "run"]
    done = cli("train", "ResNet", patches, *words, "--json")
    assert done.status == 0, done.err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"] == {
        "name": "resnet", "input_shape": [8, 8, 3], "options": {"stem": "cifar", "depth": 8, "filters": [8, 16, 32]},
    }  # fmt: skip
    assert "holds the finished run" in cli("train", "resnet", patches, *words).out
    model = kd.weights.open_model(tmp_path / "run" / "model.keras")
    assert model.architecture["constructor"] == "ResNet" and model.get_layer("conv4_block1_out").output.shape[-1] == 32
    assert cli("evaluate", tmp_path / "run", patches, "--json").json["images"] == 6
    words[words.index("depth=8")] = "depth=14"
    assert "model.options.depth is 8 there, 14 here" in cli("train", "resnet", patches, *words).error


def test_convert_names_builders(cli, tmp_path):
    source = kd.save_weights(kd.HighwayMLP(depth=3, width=8), tmp_path / "a.safetensors")
    words = ("--network", "highwaymlp", "--option", "depth=3", "--option", "width=8")
    assert cli("convert", source, tmp_path / "b.keras", *words, "--json").json["weights"] > 0


def test_what_a_benchmark_of_a_builder_measures():
    request = benchmark.Request(
        ["ResNet"],
        "train",
        "float32",
        None,
        "none",
        None,
        None,
        False,
        {"depth": 8, "stem": "cifar"},
        None,
        False,
        None,
    )
    (found,) = benchmark._configurations(request)
    assert (found.model, found.batch) == ("resnet", 128)
    from keras_deepnets.benchmark.keras_side import network_of

    job = Job(model="resnet", options={"blocks": (1, 1, 1), "stem": "cifar"}, image_size=16)
    assert Job.from_json(job.to_json()) == job
    network, _ = network_of(job)
    assert network.input_shape == (None, 16, 16, 3) and network.architecture["options"]["blocks"] == [1, 1, 1]
