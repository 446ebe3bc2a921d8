"""Errors that tell the user what to do: each kind is met, its advice is taken as the message words it, and that succeeds."""

import re

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.weights import MisfitError, naming_tables, open_model
from tests.weights.common import arrays, assert_same, fill, peer_tensors, tiny

pytestmark = pytest.mark.integration


def taken(call, message):
    """What the groups of `message` match in the error of `call`."""
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    return re.search(message, str(caught.value)).groups()


def made(text):
    """What a message says to write, as Python."""
    return eval(text, {"keras_deepnets": kd, "dict": dict, "keras": keras})


# ---- weights ----------------------------------------------------------------------------------------------------------------------------


SIDE = {"input_shape": (32, 32, 3)}
BOTTLENECKS = {"blocks": (1, 1), "filters": (8, 16), "block": "bottleneck", **SIDE}

NEEDING = {
    "an option of the network": (
        lambda: kd.ResNet50(classes=3, downsample="1x1", **SIDE),
        lambda: kd.ResNet50(classes=3, downsample="3x3", **SIDE),
        naming_tables.TORCHVISION_RESNET,
    ),
    "an option of a wide network": (
        lambda: kd.WideResNet50_2(classes=3, downsample="1x1", **SIDE),
        lambda: kd.WideResNet50_2(classes=3, **SIDE),
        naming_tables.TORCHVISION_RESNET,
    ),
    "two options of a builder": (
        lambda: kd.PreActResNet(**BOTTLENECKS, downsample="1x1", activate_first=True),
        lambda: kd.PreActResNet(**BOTTLENECKS, downsample="3x3", activate_first=False),
        naming_tables.TIMM_RESNETV2,
    ),
}


@pytest.mark.parametrize(
    "case", [case if "builder" in case else pytest.param(case, marks=pytest.mark.slow) for case in NEEDING]
)
def test_build_it_with_an_option_that_it_has(case):
    build, source, names = NEEDING[case]
    model, source = build(), fill(source())
    tensors = peer_tensors(source, names)
    (advice,) = taken(lambda: kd.load_weights(model, tensors), r"computes something else\. Build it with (.*)\.$")
    options = made(f"dict({advice})")
    constructor = getattr(kd, model.architecture["constructor"])
    assert set(options) <= set(constructor.facts.options)
    given = {"input_shape": model.input_shape[1:], "classes": model.output_shape[-1], **model.architecture["options"]}
    again = constructor(**(given | options))
    assert kd.load_weights(again, tensors).complete
    assert_same(again, arrays(source))


def test_a_network_without_the_option_is_told_of_the_builder():
    """The reported case: `PreActResNet164` has no `downsample`."""
    size = {"input_shape": (16, 16, 3), "classes": 3}
    source = fill(kd.PreActResNet(depth=164, stem="cifar", block="bottleneck", downsample="3x3", **size))
    tensors = peer_tensors(source, naming_tables.PYTORCHCV_CIFAR_WIDE)
    message = r"computes something else\. PreActResNet164 has no option (.*); build it as (keras_deepnets\.PreActResNet\(.*)\)\.$"
    lacking, call = taken(lambda: kd.load_weights(kd.PreActResNet164(**size), tensors), message)
    assert lacking == "downsample"
    again = made(f"{call}, input_shape=(16, 16, 3), classes=3)")
    assert kd.load_weights(again, tensors).complete
    assert_same(again, arrays(source))


@pytest.mark.parametrize("name", kd.list_models())
def test_no_network_is_told_of_an_option_that_it_lacks(name):
    """Of every option that weights may need, for every network: what the message says can be called."""
    from keras_deepnets.weights.architectures import spec_of, way_to

    constructor = getattr(kd, kd.model_info(name).constructor)
    architecture = {"constructor": constructor.__name__, "family": constructor.facts.family.name, "options": {}}
    spec = spec_of(architecture)
    values = {"downsample": "3x3", "shortcut": "B", "activate_first": False, "form": "keras", "norm": "group"}
    values |= {"antialias": "blur", "unit": "original", "project_first": True, "stem_padding": "same"}
    for option, value in values.items():
        if not hasattr(spec, option):
            continue
        way = way_to(architecture, {option: value})
        if way.startswith("Build it with "):
            assert option in constructor.facts.options
            continue
        call = re.search(r"keras_deepnets\.(\w+)\((.*)\)\.$", way)
        if call is None:
            assert way.endswith("these weights belong to another network.")
            continue
        options = made(f"dict({call[2]})")
        facts = getattr(kd, call[1]).facts
        assert set(options) <= set(facts.options) and options[option] == value
        built = facts.family.spec(**options)
        assert built.depth == spec.depth


def test_pooling_shortcuts():
    options = {"blocks": (1, 2), "filters": (8, 16), **SIDE}
    strided, pooled = (kd.ResNet(**options, shortcut=kind) for kind in "BD")
    tensors = peer_tensors(fill(strided), naming_tables.TORCHVISION_RESNET)
    (advice,) = taken(lambda: kd.load_weights(pooled, tensors), r"Build it with (shortcut='B')\.$")
    assert kd.load_weights(kd.ResNet(**(options | made(f"dict({advice})"))), tensors).complete


def test_another_input_scaling(tmp_path):
    source = fill(tiny())
    source.scaling = kd.Scaling((1, 2, 3), (4, 5, 6), "BGR")
    path = kd.save_weights(source, tmp_path / "w.safetensors")
    model = tiny(include_preprocessing=True)
    (advice,) = taken(
        lambda: kd.load_weights(model, path), r"build it with (include_preprocessing=keras_deepnets.*)\.$"
    )
    again = tiny(**made(f"dict({advice})"))
    assert kd.load_weights(again, path).complete and again.scaling == source.scaling


def test_another_number_of_classes_in_a_constructor(tmp_path):
    path = kd.save_weights(fill(tiny(classes=4)), tmp_path / "w.safetensors")
    message = r"build it with (include_top=False), or without weights and use load_weights\(…, (skip_head=True)\), or use (\w+)\.$"
    top, skip, replace = taken(lambda: tiny(classes=7, weights=path), message)
    assert tiny(weights=path, **made(f"dict({top})")).layers[-1].name == "conv3_block1_out"
    assert kd.load_weights(tiny(classes=7), path, **made(f"dict({skip})")).complete
    assert getattr(kd, replace)(tiny(classes=4, weights=path), 7).output_shape == (None, 7)


def test_an_option_that_contradicts_the_weights(tmp_path):
    path = kd.save_weights(fill(kd.ResNet50(classes=3, downsample="3x3", **SIDE)), tmp_path / "w.safetensors")
    name, _ = taken(
        lambda: kd.ResNet50(weights=path, downsample="1x1", **SIDE), r"and (\w+)='1x1' was given; (leave it out)\.$"
    )
    assert name == "downsample"
    assert kd.ResNet50(weights=path, **SIDE).architecture["options"] == {"downsample": "3x3"}


def test_models_mappings_and_names_that_constructors_do_not_take(tmp_path):
    source = fill(tiny())
    (use,) = taken(lambda: tiny(weights=source), r"; use (\w+) for models and mappings\.$")
    assert getattr(kd, use)(tiny(), source).complete
    # A path that weights=None and load_weights take.
    path = kd.save_weights(fill(kd.FitNet1(**SIDE)), tmp_path / "w.safetensors")
    (keyword,) = taken(
        lambda: kd.FitNet1(weights="imagenet"), r"pass (weights=None), or the path of a file for load_weights\.$"
    )
    assert kd.load_weights(kd.FitNet1(**SIDE, **made(f"dict({keyword})")), path).complete


def test_only_the_classifier_differs(tmp_path):
    model = tiny(classes=7)
    source = fill(tiny(classes=4))
    with pytest.raises(MisfitError) as caught:
        kd.load_weights(model, source)
    (keyword,) = re.search(r"Only the classifier differs; (skip_head=True) keeps", str(caught.value)).groups()
    assert kd.load_weights(model, source, **made(f"dict({keyword})")).complete


def test_files_that_do_not_say_their_network(tmp_path):
    without_top = peer_tensors(fill(kd.ResNet20(include_top=False)), naming_tables.PLAIN_CIFAR_RESNET)
    taken(lambda: open_model(without_top), r"no record of its network; (name the network)\.$")
    assert open_model(without_top, "resnet20").output_shape[-1] == 64
    unnamed = peer_tensors(fill(tiny(shortcut="A")), naming_tables.PLAIN_CIFAR_RESNET)
    taken(lambda: open_model(unnamed), r"; (name the network, or build it and use load_weights)\.$")
    assert kd.load_weights(tiny(shortcut="A"), unnamed).complete
    options = {"blocks": (1, 1), "filters": (8, 16), "stem": "cifar", "input_shape": (16, 16, 3)}
    assert open_model(unnamed, "ResNet", **options).output_shape == (None, 4)
    assert_same(open_model(unnamed, "ResNet", **options), arrays(fill(tiny(shortcut="A"))))


def test_layers_around_a_network(tmp_path):
    inputs = keras.Input((16, 16, 1))
    model = keras.Model(inputs, tiny()(keras.layers.Conv2D(3, 1)(inputs)))
    for suffix in (".safetensors", ".keras"):
        path = kd.save_weights(model, tmp_path / f"w{suffix}")
        message = r"Build the network and use (\w+), or load a \.keras file with (keras\.saving\.load_model)\.$"
        use, load = taken(lambda path=path: open_model(path), message)
        assert getattr(kd, use)(tiny(), path).complete
    assert made(load)(path).count_params() == model.count_params()


def test_a_model_without_weights():
    model = keras.Sequential([keras.layers.Conv2D(3, 1)])
    taken(
        lambda: kd.load_weights(model, {"conv2d/kernel": np.zeros((1, 1, 3, 3))}),
        r"has no weights yet; (build it) first",
    )
    model.build((None, 8, 8, 3))
    kernel, bias = (weight.path.split("/")[-2:] for weight in model.weights)
    values = {"/".join(kernel): np.ones((1, 1, 3, 3)), "/".join(bias): np.ones(3)}
    assert kd.load_weights(model, values).complete


# ---- families ---------------------------------------------------------------------------------------------------------------------------

CIFAR = {"stem": "cifar", "input_shape": (16, 16, 3)}

# What is wrong, the message with its advice in groups, and the call that follows the advice.
FAMILIES = {
    "smallest side": (
        lambda: kd.ResNet50(input_shape=(16, 16, 3)),
        r"each side must be at least (\d+)\.$",
        lambda side: kd.ResNet50(input_shape=(int(side), int(side), 3), classes=2),
    ),
    "channels first": (
        lambda: kd.ResNet20(input_shape=(3, 32, 32)),
        r"these networks are channels last: .*e\.g\. (\(.*\))\.$",
        lambda shape: kd.ResNet20(input_shape=made(shape)),
    ),
    "form of a shape": (
        lambda: kd.ResNet20(input_shape=(32, 32)),
        r"must be \(height, width, channels\), e\.g\. (\(.*\))\.$",
        lambda shape: kd.ResNet20(input_shape=made(shape)),
    ),
    "scaling of other channels": (
        lambda: kd.ResNet20(input_shape=(16, 16, 1), include_preprocessing=True),
        r"pass (include_preprocessing=keras_deepnets\.Scaling)\(mean, std\) with one number per channel\.$",
        lambda call: kd.ResNet20(input_shape=(16, 16, 1), **made(f"dict({call}((1,), (2,)))")),
    ),
    "shape and tensor": (
        lambda: kd.ResNet20(input_tensor=keras.Input((16, 16, 3)), input_shape=(32, 32, 3)),
        r"(give one of them)\.$",
        lambda _: (kd.ResNet20(input_tensor=keras.Input((16, 16, 3))), kd.ResNet20(input_shape=(32, 32, 3))),
    ),
    "a tensor that is none": (
        lambda: kd.ResNet20(input_tensor=np.zeros((1, 16, 16, 3))),
        r"must be a Keras tensor such as (keras\.Input)\(",
        lambda name: kd.ResNet20(input_tensor=made(name)((16, 16, 3))),
    ),
    "prefix": (
        lambda: kd.ResNet20(layer_prefix="left/"),
        r"e\.g\. ('left_')\.$",
        lambda text: kd.ResNet20(layer_prefix=made(text), input_shape=(16, 16, 3)),
    ),
    "depth of a residual network": (
        lambda: kd.ResNet(depth=21, **CIFAR),
        r"e\.g\. (\d+)\.$",
        lambda depth: kd.ResNet(depth=int(depth), **CIFAR),
    ),
    "depth of bottlenecks": (
        lambda: kd.PreActResNet(depth=22, block="bottleneck", **CIFAR),
        r"e\.g\. (\d+)\.$",
        lambda depth: kd.PreActResNet(depth=int(depth), block="bottleneck", **CIFAR),
    ),
    "depth of a wide network": (
        lambda: kd.WideResNet(depth=15, widen_factor=1, input_shape=(16, 16, 3)),
        r"e\.g\. (\d+)\.$",
        lambda depth: kd.WideResNet(depth=int(depth), widen_factor=1, input_shape=(16, 16, 3)),
    ),
    "depth of a dense network": (
        lambda: kd.DenseNet(depth=23, growth_rate=4, **CIFAR),
        r"e\.g\. (\d+)\.$",
        lambda depth: kd.DenseNet(depth=int(depth), growth_rate=4, **CIFAR),
    ),
    "depth and blocks": (
        lambda: kd.ResNet(depth=20, blocks=(1, 1, 1), **CIFAR),
        r"(give one of them)\.$",
        lambda _: (kd.ResNet(depth=20, **CIFAR), kd.ResNet(blocks=(1, 1, 1), **CIFAR)),
    ),
    "neither depth nor blocks": (
        lambda: kd.ResNet(input_shape=(32, 32, 3)),
        r"give (blocks), e\.g\. (blocks=\(.*?\)), or a depth with (stem='cifar')\.$",
        lambda _, blocks, stem: (
            kd.ResNet(**SIDE, classes=2, **made(f"dict({blocks})")),
            kd.ResNet(**SIDE, depth=8, **made(f"dict({stem})")),
        ),
    ),
    "neither, of a plain network": (
        lambda: kd.PlainNet(input_shape=(32, 32, 3)),
        r"give (blocks), e\.g\. (blocks=\(.*?\)), or a depth with (stem='cifar')\.$",
        lambda _, blocks, stem: (
            kd.PlainNet(**SIDE, classes=2, **made(f"dict({blocks})")),
            kd.PlainNet(**SIDE, depth=8, **made(f"dict({stem})")),
        ),
    ),
    "neither, of a dense network": (
        lambda: kd.DenseNet(input_shape=(32, 32, 3)),
        r"give blocks, e\.g\. (blocks=\(.*?\)), or a depth with (stem='cifar')\.$",
        lambda blocks, stem: (
            kd.DenseNet(**SIDE, growth_rate=2, **made(f"dict({blocks})")),
            kd.DenseNet(**SIDE, growth_rate=4, depth=10, **made(f"dict({stem})")),
        ),
    ),
    "depth of an ImageNet DenseNet": (
        lambda: kd.DenseNet(depth=40, input_shape=(32, 32, 3)),
        r"give blocks=\(…\) with (stem='imagenet')\.$",
        lambda stem: kd.DenseNet(blocks=(1, 1), growth_rate=4, **SIDE, **made(f"dict({stem})")),
    ),
    "depth and blocks of a DenseNet": (
        lambda: kd.DenseNet(depth=40, blocks=(1, 1), **CIFAR),
        r"(give one of them)\.$",
        lambda _: (kd.DenseNet(depth=10, growth_rate=4, **CIFAR), kd.DenseNet(blocks=(1, 1), growth_rate=4, **CIFAR)),
    ),
    "a stem's last filters": (
        lambda: kd.DenseNet(blocks=(1, 1), deep_stem=(4, 4, 8), initial_filters=16, **SIDE),
        r"(give one of them)\.$",
        lambda _: (
            kd.DenseNet(blocks=(1, 1), growth_rate=4, deep_stem=(4, 4, 8), **SIDE),
            kd.DenseNet(blocks=(1, 1), growth_rate=4, initial_filters=16, **SIDE),
        ),
    ),
    "padding of another stem": (
        lambda: kd.DenseNet(blocks=(1, 1), stem_padding="same", **CIFAR),
        r"(Leave it out)\.$",
        lambda _: kd.DenseNet(blocks=(1, 1), growth_rate=4, **CIFAR),
    ),
    "no blocks": (
        lambda: kd.DenseNet(blocks=(), **CIFAR),
        r"give the layers of (at least one) block\.$",
        lambda _: kd.DenseNet(blocks=(1,), growth_rate=4, **CIFAR),
    ),
    "groups of basic blocks": (
        lambda: kd.ResNet(blocks=(1, 1), filters=(64, 64), groups=2, **CIFAR),
        r"set (block='bottleneck')\.$",
        lambda block: kd.ResNet(blocks=(1, 1), filters=(64, 64), groups=2, **CIFAR, **made(f"dict({block})")),
    ),
    "projection first": (
        lambda: kd.ResNet(blocks=(1, 1), filters=(8, 16), block="bottleneck", project_first=True, **CIFAR),
        r"(Leave it out)\.$",
        lambda _: kd.ResNet(blocks=(1, 1), filters=(8, 16), block="bottleneck", **CIFAR),
    ),
    "antialiasing of keras' form": (
        lambda: kd.PreActResNet(blocks=(1, 1), filters=(8, 16), form="keras", antialias="blur", **SIDE),
        r"(leave one out)\.$",
        lambda _: (
            kd.PreActResNet(blocks=(1, 1), filters=(8, 16), form="keras", **SIDE),
            kd.PreActResNet(blocks=(1, 1), filters=(8, 16), antialias="blur", **SIDE),
        ),
    ),
    "groups of normalisation": (
        lambda: kd.ResNet(blocks=(1, 1), filters=(8, 16), norm="group", **CIFAR),
        r"give filters divisible by (32)\.$",
        lambda divisor: kd.ResNet(blocks=(1, 1), filters=(int(divisor), 2 * int(divisor)), norm="group", **CIFAR),
    ),
    "sides of a fully connected network": (
        lambda: kd.HighwayMLP10(input_shape=(None, None, 1)),
        r"pass e\.g\. (input_shape=\(.*\))\.$",
        lambda shape: kd.HighwayMLP10(**made(f"dict({shape})")),
    ),
    "kernels of a highway network": (
        lambda: kd.Highway(filters=(8, 8), convolutions=(2, 2), kernels=(2,), input_shape=(16, 16, 3)),
        r"e\.g\. (\(.*\))\.$",
        lambda kernels: kd.Highway(filters=(8, 8), convolutions=(2, 2), kernels=made(kernels), input_shape=(16, 16, 3)),
    ),
    "stages of a highway network": (
        lambda: kd.Highway(filters=8, input_shape=(16, 16, 3)),
        r"e\.g\. (\(.*\))\.$",
        lambda filters: kd.Highway(filters=made(filters), input_shape=(16, 16, 3)),
    ),
    "stages of a FitNet": (
        lambda: kd.FitNet(filters=(16, 32), input_shape=(16, 16, 3)),
        r"e\.g\. (\(.*\))\.$",
        lambda filters: kd.FitNet(filters=made(filters), input_shape=(16, 16, 3)),
    ),
}


@pytest.mark.parametrize("case", FAMILIES)
def test_what_constructors_advise(case):
    wrong, message, follow = FAMILIES[case]
    found = follow(*taken(wrong, message))
    for model in found if isinstance(found, tuple) else (found,):
        assert isinstance(model, keras.Model) and model.count_params() > 0


@pytest.mark.parametrize("name", kd.list_models())
def test_an_unknown_option_lists_those_that_there_are(name):
    constructor = getattr(kd, kd.model_info(name).constructor)
    with pytest.raises(TypeError, match=r"Its architecture options: (.*)\.$") as caught:
        constructor(no_such_option=1)
    listed = re.search(r"options: (.*)\.$", str(caught.value))[1]
    assert ([] if listed == "none" else listed.split(", ")) == list(constructor.facts.options)


# ---- surgery and export -----------------------------------------------------------------------------------------------------------------


def test_what_surgery_advises():
    model = tiny(include_top=False)
    (advice,) = taken(lambda: kd.replace_classifier(model, 3), r"; build it with (include_top=True)\.$")
    assert kd.replace_classifier(tiny(**made(f"dict({advice})")), 3).output_shape == (None, 3)
    foreign = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    (advice,) = taken(lambda: kd.replace_classifier(foreign, 3), r"; add one: (keras\.layers\.Dense)\(classes\)\.$")
    foreign.add(made(advice)(5))
    assert kd.replace_classifier(foreign, 3).output_shape == (None, 3)
    (near,) = taken(lambda: kd.freeze(tiny(), "conv2_block1_oot"), r"Did you mean ([^,?]+)")
    assert not kd.freeze(tiny(), near).get_layer(near).trainable


def test_what_export_advises():
    from keras_deepnets.export.classifier import classifier_of

    any_size = tiny(input_shape=(None, None, 3))
    (shape,) = taken(lambda: classifier_of(any_size), r"build it with input_shape=(\(height, width, 3\))\.$")
    assert classifier_of(tiny(input_shape=eval(shape, {"height": 16, "width": 16}))).classes == 4
    (top,) = taken(lambda: classifier_of(tiny(include_top=False)), r"build it with (include_top=True)\.$")
    assert classifier_of(tiny(**made(f"dict({top})"))).classes == 4
    model = tiny()
    two = keras.Model(model.input, [model.output, model.get_layer("avg_pool").output])
    (pick,) = taken(lambda: classifier_of(two), r"pick them with (keras\.Model)\(input, output\)\.$")
    picked = classifier_of(made(pick)(two.input, two.outputs[0]))
    assert picked.scaling == model.scaling
