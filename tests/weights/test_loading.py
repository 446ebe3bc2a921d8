"""Weights in anybody's naming: all of them or none."""

import functools
import os
import pickle
import re

import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.families import googlenet
from keras_deepnets.families.bn_inception import MODULES
from keras_deepnets.weights import MisfitError, naming_tables, open_model, reading, saving
from tests.weights.common import arrays, assert_same, fill, peer_tensors, tiny

BUILDERS = {
    "torchvision's and timm's ResNet": lambda: kd.ResNet(
        blocks=(1, 1), filters=(8, 16), block="bottleneck", downsample="3x3", attention="se", input_shape=(32, 32, 3)
    ),
    "timm's ResNet-C": lambda: kd.ResNet(
        blocks=(1, 1),
        filters=(8, 16),
        deep_stem=(4, 4, 8),
        block="bottleneck",
        downsample="3x3",
        input_shape=(32, 32, 3),
    ),
    "timm's ResNet-D": lambda: kd.ResNet(
        blocks=(1, 2),
        filters=(8, 16),
        deep_stem=(4, 4, 8),
        shortcut="D",
        stem_pool="convolution",
        attention="se",
        se_ratio=0.25,
        input_shape=(32, 32, 3),
    ),
    "timm's ResNet with ResNet-D's shortcuts": lambda: kd.ResNet(
        blocks=(1, 2), filters=(8, 16), shortcut="D", attention="eca", input_shape=(32, 32, 3)
    ),
    "timm's ResNet with group normalisation": lambda: kd.ResNet(
        blocks=(1, 2), filters=(32, 64), norm="group", input_shape=(32, 32, 3)
    ),
    "plain CIFAR ResNet": lambda: tiny(shortcut="A"),
    "torchvision's and timm's DenseNet": lambda: kd.DenseNet(blocks=(2, 2), growth_rate=4, input_shape=(32, 32, 3)),
    "timm's DenseNet with a deep stem": lambda: kd.DenseNet(
        blocks=(2, 2), growth_rate=4, deep_stem=(4, 4, 8), antialias="blur", input_shape=(32, 32, 3)
    ),
    "timm's ResNetV2": lambda: kd.PreActResNet(blocks=(1, 1), filters=(8, 16), input_shape=(32, 32, 3)),
    "timm's ResNetV2-D": lambda: kd.PreActResNet(
        blocks=(1, 1), filters=(8, 16), deep_stem=(4, 4, 8), shortcut="D", input_shape=(32, 32, 3)
    ),
    "timm's ResNetV2-D with group normalisation": lambda: kd.PreActResNet(
        blocks=(1, 1), filters=(32, 64), deep_stem=(32, 32, 32), shortcut="D", norm="group", input_shape=(32, 32, 3)
    ),
    "pytorchcv's CIFAR ResNet": lambda: tiny(),
    "pytorchcv's CIFAR PreResNet": lambda: kd.PreActResNet(
        blocks=(1, 1), filters=(8, 16), stem="cifar", activate_first=False
    ),
    "pytorchcv's CIFAR Wide ResNet": lambda: kd.WideResNet(depth=10, widen_factor=2),
    "pytorchcv's CIFAR DenseNet": lambda: kd.DenseNet(
        blocks=(2, 2, 2), growth_rate=4, bottleneck=False, compression=0.5, stem="cifar"
    ),
    "pytorchcv's CIFAR DenseNet-BC": lambda: kd.DenseNet(blocks=(2, 2, 2), growth_rate=4, stem="cifar"),
    "KerasHub's ResNet-D": lambda: kd.ResNet(
        blocks=(1, 2), filters=(8, 16), deep_stem=(4, 4, 8), shortcut="D", project_first=True, input_shape=(32, 32, 3)
    ),
    "KerasHub's DenseNet": lambda: kd.DenseNet(
        blocks=(2, 2), growth_rate=4, stem_padding="same", input_shape=(32, 32, 3)
    ),
    "KerasHub's ResNet": lambda: kd.ResNet(blocks=(1, 1), filters=(8, 16), input_shape=(32, 32, 3)),
} | {
    naming.name: functools.partial(
        kd.VGG,
        convolutions=stages,
        filters=(4, 4, 8, 8, 8),
        batch_norm=batch_norm,
        hidden=(6, 5),
        input_shape=(32, 32, 3),
        classes=10,
    )
    for (depth, batch_norm), namings in naming_tables.VGG.items()
    for stages in [naming_tables.VGG_STAGES[depth]]
    for naming in namings
}
BUILDERS["pytorchcv's NIN"] = functools.partial(kd.NIN, pool2="avg", pool_padding="symmetric")
BUILDERS["pytorchcv's VGG"] = functools.partial(
    kd.VGG,
    convolutions=(1, 2),
    filters=(4, 8),
    batch_norm=True,
    hidden=(6, 5),
    input_shape=(32, 32, 3),
    classes=10,
)
BUILDERS["torchvision's GoogLeNet"] = lambda: kd.GoogLeNet(
    batch_norm=True, modules=[[[2, 2, 4, 2, 4, 2]] * len(stage) for stage in googlenet.MODULES], input_shape=(32, 32, 3)
)
BUILDERS |= dict.fromkeys(
    (naming_tables.CADENE_BN_INCEPTION.name, naming_tables.PYTORCHCV_BN_INCEPTION.name),
    lambda: kd.BNInception(
        modules=[[[2, 2, 4, 2, 4, 2] if module[0] else [0, 2, 4, 2, 4, 0] for module in stage] for stage in MODULES],
        input_shape=(32, 32, 3),
        classes=10,
    ),
)
BUILDERS |= {
    naming.name: functools.partial(
        lambda **kwargs: kd.detection.FasterRCNN(
            kd.ResNet(include_top=False, blocks=(1, 1, 1, 1), filters=(8, 8, 8, 8), name="body8"), 3, **kwargs
        ),
        pyramid_channels=8,
        frozen_batch_norm=False,
        **options,
    )
    for naming, options in (
        (naming_tables.TORCHVISION_FASTER_RCNN, {}),
        (naming_tables.TORCHVISION_FASTER_RCNN_V2, {"pyramid_norm": True, "rpn_depth": 2, "head": "convolutional"}),
    )
}
BUILDERS[naming_tables.PYTORCHCV_FRACTALNET.name] = lambda: kd.FractalNet(
    filters=(4, 6, 8), dropout=0, pool_before_join=False
)


def test_every_naming_is_tried():
    assert {each.name for each in naming_tables.NAMINGS} == set(BUILDERS)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_peers_names_are_recognised(name):
    theirs = next(each for each in naming_tables.NAMINGS if each.name == name)
    source, target = fill(BUILDERS[name]()), BUILDERS[name]()
    report = kd.load_weights(target, peer_tensors(source, theirs))
    assert (report.naming, report.loaded, report.complete) == (name, len(source.weights), True)
    expected = arrays(source)
    if theirs.epsilon:  # goes into the variances
        own = next(layer.epsilon for layer in target.layers if hasattr(layer, "epsilon"))
        shift = np.float32(theirs.epsilon - own)
        expected = {key: a + shift if key.endswith("moving_variance") else a for key, a in expected.items()}
    assert_same(target, expected)


def test_wrappers_prefixes_bookkeeping_and_the_old_spelling_of_densenets():
    source, target = (
        fill(BUILDERS["torchvision's and timm's DenseNet"]()),
        BUILDERS["torchvision's and timm's DenseNet"](),
    )
    tensors = peer_tensors(source, naming_tables.TORCHVISION_DENSENET)
    tensors = {
        "module." + re.sub(r"(denselayer\d\.)(norm|conv)(\d)", r"\1\2.\3", name): a for name, a in tensors.items()
    }
    assert any("conv.2.weight" in name for name in tensors)
    tensors["module.features.norm0.num_batches_tracked"] = np.int64(3)
    kd.load_weights(target, tensors)
    assert_same(target, arrays(source))


@pytest.mark.parametrize("suffix", [".safetensors", ".weights.h5", ".keras"])
@pytest.mark.parametrize("form", [{}, {"block_layers": True}])
def test_our_files_keep_what_the_network_is(tmp_path, suffix, form):
    source = fill(tiny(shortcut="A", **form))
    source.labels = ["a", "b", "c", "d"]
    source.scaling = kd.Scaling((1, 2, 3), (4, 5, 6), "BGR")
    path = kd.save_weights(source, tmp_path / f"saved{suffix}")
    assert sorted(tmp_path.iterdir()) == [path]
    again = open_model(path)
    assert_same(again, arrays(source))
    assert (again.labels, again.scaling, again.architecture) == (source.labels, source.scaling, source.architecture)
    assert again.input_shape == source.input_shape
    # The other form of the same network, and one without classifier.
    assert_same(tiny(weights=path, shortcut="A"), arrays(source))
    headless = tiny(weights=path, shortcut="A", include_top=False)
    assert_same(headless, {name: array for name, array in arrays(source).items() if "predictions" not in name})
    headless_path = kd.save_weights(headless, tmp_path / f"headless{suffix}")
    target = fill(tiny(shortcut="A"), seed=1)
    head = arrays(target)["predictions/kernel"]
    report = kd.load_weights(target, headless_path, skip_head=True)
    assert report.skipped == ("predictions/kernel", "predictions/bias")
    assert_same(
        target, arrays(source) | {"predictions/kernel": head, "predictions/bias": arrays(target)["predictions/bias"]}
    )


def test_forms_of_a_densenet_interchange(tmp_path):
    options = {"blocks": (2, 2), "growth_rate": 4, "stem": "cifar", "input_shape": (16, 16, 3)}
    plain, other = fill(kd.DenseNet(**options)), kd.DenseNet(**options, memory_efficient=True)
    for suffix in (".safetensors", ".weights.h5", ".keras"):
        kd.load_weights(other, kd.save_weights(plain, tmp_path / f"plain{suffix}"))
        assert_same(other, arrays(plain))
        fill(other, seed=2)
        kd.load_weights(plain, kd.save_weights(other, tmp_path / f"other{suffix}"))
        assert_same(plain, arrays(other))


def test_another_number_of_classes():
    source, target = fill(tiny()), fill(tiny(classes=7), seed=1)
    before = arrays(target)
    with pytest.raises(
        ValueError, match=r"of another shape: predictions/kernel: \(16, 4\) there, \(16, 7\) here.*skip_head=True"
    ):
        kd.load_weights(target, source)
    assert_same(target, before)
    report = kd.load_weights(target, source, skip_head=True)
    assert report.loaded == len(target.weights) - 2
    head = {name: array for name, array in before.items() if name.startswith("predictions")}
    assert_same(target, arrays(source) | head)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("layer1.0.conv1.weight"), "missing: conv2_block1_1_conv/kernel"),
        (lambda t: t.update({"layer9.0.conv1.weight": np.zeros((1, 1, 1, 1))}), r"unused: layer9\.0\.conv1\.weight"),
        (lambda t: t.update({"bn1.weight": np.zeros(9)}), r"conv1_bn/gamma: \(9,\) there, \(8,\) here"),
    ],
)
def test_strict_loading_lists_what_does_not_fit_and_changes_nothing(change, message):
    target = fill(tiny(shortcut="A"), seed=1)
    before = arrays(target)
    tensors = peer_tensors(fill(tiny(shortcut="A")), naming_tables.PLAIN_CIFAR_RESNET)
    change(tensors)
    with pytest.raises(ValueError, match=message):
        kd.load_weights(target, tensors)
    assert_same(target, before)
    report = kd.load_weights(target, tensors, strict=False)
    assert not report.complete and report.loaded >= len(before) - 1


def test_the_report_lists_what_the_message_cannot():
    target = tiny(shortcut="A")
    tensors = peer_tensors(fill(tiny(shortcut="A")), naming_tables.PLAIN_CIFAR_RESNET)
    kept = {name: array for name, array in tensors.items() if name.startswith(("conv1", "bn1"))}
    with pytest.raises(MisfitError, match=f"missing: .* and {len(target.weights) - 5 - 8} more") as caught:
        kd.load_weights(target, kept)
    report = pickle.loads(pickle.dumps(caught.value)).report
    assert (
        set(report.missing) == {name for name in arrays(target) if not name.startswith("conv1_")} and report.loaded == 0
    )
    assert (report.unused, report.mismatched, report.complete) == ((), (), False)


def test_another_familys_weights_are_named():
    tensors = peer_tensors(BUILDERS["torchvision's and timm's DenseNet"](), naming_tables.TORCHVISION_DENSENET)
    with pytest.raises(ValueError, match="the names of torchvision's and timm's DenseNet, but resnet is a ResNet"):
        kd.load_weights(tiny(), tensors)


def test_weights_of_a_network_with_the_same_shapes_and_other_results():
    build = BUILDERS["torchvision's and timm's ResNet"]
    tensors = peer_tensors(build(), naming_tables.TORCHVISION_RESNET)
    options = {
        "blocks": (1, 1),
        "filters": (8, 16),
        "block": "bottleneck",
        "attention": "se",
        "input_shape": (32, 32, 3),
    }
    with pytest.raises(
        ValueError, match="need downsample='3x3', but it was built with downsample='1x1', which computes something else"
    ):
        kd.load_weights(kd.ResNet(**options), tensors)


def test_our_files_of_a_network_with_the_same_shapes_and_other_results(tmp_path):
    for options in ({"antialias": "blur"}, {"shortcut": "D"}):
        path = kd.save_weights(tiny(**options), tmp_path / "w.safetensors")
        ((option, value),) = options.items()
        with pytest.raises(ValueError, match=f"need {option}={value!r}, but it was built with {option}="):
            kd.load_weights(tiny(), path)
        assert kd.load_weights(tiny(**options, block_layers=True), path).complete


def test_batch_and_group_normalisation_do_not_interchange():
    grouped, batched = (
        kd.ResNet(blocks=(1, 2), filters=(32, 64), norm=norm, input_shape=(32, 32, 3)) for norm in ("group", "batch")
    )
    with pytest.raises(ValueError, match="missing: conv1_bn/moving_mean"):
        kd.load_weights(batched, peer_tensors(grouped, naming_tables.TIMM_GROUPED_RESNET))
    with pytest.raises(ValueError, match="missing: conv1_gn/gamma"):
        kd.load_weights(grouped, peer_tensors(batched, naming_tables.TORCHVISION_RESNET))


def test_weights_that_want_another_input(tmp_path):
    source = fill(tiny(shortcut="A"))
    source.scaling = kd.Scaling((1, 2, 3), (4, 5, 6), "BGR")
    path = kd.save_weights(source, tmp_path / "w.safetensors")
    model = tiny(shortcut="A", include_preprocessing=True)
    before = arrays(model)
    with pytest.raises(ValueError, match=r"needs mean \(1\.0, 2\.0, 3\.0\).*build it with include_preprocessing="):
        kd.load_weights(model, path)
    assert_same(model, before)
    again = tiny(shortcut="A", include_preprocessing=True, weights=path)
    assert again.scaling == source.scaling
    images = np.random.default_rng(0).integers(0, 255, (1, 16, 16, 3)).astype("uint8")
    np.testing.assert_allclose(again(images), source(source.scaling.apply(images.astype("float32"))), atol=1e-5)


def test_a_constructor_sets_what_the_weights_need(tmp_path):
    source = fill(kd.ResNet50(classes=3, downsample="3x3", input_shape=(32, 32, 3)))
    path = kd.save_weights(source, tmp_path / "r50.safetensors")
    model = kd.ResNet50(weights=path, input_shape=(32, 32, 3))
    assert model.output_shape == (None, 3) and model.architecture["options"] == {"downsample": "3x3"}
    with pytest.raises(ValueError, match="need downsample='3x3' and downsample='1x1' was given"):
        kd.ResNet50(weights=path, downsample="1x1")
    with pytest.raises(ValueError, match="have 3 classes and classes=5 was given"):
        kd.ResNet50(weights=path, classes=5)


def test_bfloat16_safetensors(tmp_path):
    import ml_dtypes

    source = fill(tiny(shortcut="A"))
    tensors = {
        k: v.astype(ml_dtypes.bfloat16) for k, v in peer_tensors(source, naming_tables.PLAIN_CIFAR_RESNET).items()
    }
    blobs = {k: (np.ascontiguousarray(v).view(np.uint16), "BF16") for k, v in tensors.items()}
    write_safetensors(blobs, tmp_path / "half.safetensors")
    target = tiny(shortcut="A")
    kd.load_weights(target, tmp_path / "half.safetensors")
    for name, array in arrays(source).items():
        np.testing.assert_array_equal(arrays(target)[name], array.astype(ml_dtypes.bfloat16).astype("float32"))


def write_safetensors(blobs, path):
    """The format by hand: a length, a JSON header, the bytes."""
    import json

    header, data = {}, b""
    for name, (array, dtype) in blobs.items():
        raw = array.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_what_we_write_is_safetensors(tmp_path):
    """Read by its own package, with every type of numbers that a weight can have."""
    import ml_dtypes
    from safetensors import safe_open

    rng = np.random.default_rng(0)
    types = ("float64", "float32", "float16", ml_dtypes.bfloat16, "int64", "int8", "uint32", "bool")
    arrays_ = {f"{np.dtype(kind).name}/x": rng.normal(0, 9, (3, 5)).astype(kind) for kind in types}
    arrays_ |= {
        "scalar/x": np.array(3.0, "float32"),
        "none/x": np.zeros((0, 4), "float32"),
        "turned/x": rng.normal(size=(2, 3)).T,
    }
    saving.save_arrays(arrays_, {"format": 1}, tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", framework="np") as file:
        assert file.metadata() == {"keras_deepnets": '{"format": 1}'} and set(file.keys()) == set(arrays_)
        for name, array in arrays_.items():
            if "bfloat16" in name:
                assert file.get_slice(name).get_dtype() == "BF16"
                array, found = array.astype("float32"), reading.read(tmp_path / "x.safetensors").arrays[name]
            else:
                found = file.get_tensor(name)
            np.testing.assert_array_equal(found, array, strict=True)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask()
    with pytest.raises(ValueError, match="x is of type complex64, which safetensors files cannot hold"):
        saving.save_arrays({"x": np.zeros(2, "complex64")}, {}, tmp_path / "y.safetensors")
    assert not (tmp_path / "y.safetensors").exists()


def umask():
    found = os.umask(0)
    os.umask(found)
    return found


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match="there is no weights file"):
        kd.load_weights(tiny(), tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="must be a file of type"):
        kd.ResNet20(weights=tmp_path / "weights.onnx")
    for suffix in (".safetensors", ".weights.h5", ".keras", ".h5"):
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(b"\x10\0\0\0\0\0\0\0 not at all")
        with pytest.raises(ValueError, match="cannot be read as a weights file"):
            kd.load_weights(tiny(), path)
    whole = kd.save_weights(fill(tiny()), tmp_path / "whole.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be read as a weights file"):
        kd.load_weights(tiny(), tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match="match no known naming"):
        kd.load_weights(tiny(), {"blob": np.zeros(3)})


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda tensors, scalar: {"epoch": 3, "arch": "resnet20", "state_dict": tensors, "best_acc1": scalar},
        lambda tensors, scalar: {"model": tensors, "optimizer": {"state": {0: {"step": scalar}}}, "step": scalar},
        lambda tensors, scalar: {"model": {"state_dict": tensors}, "lr": scalar},
        lambda tensors, scalar: {"net": {f"module.{k}": v for k, v in tensors.items()}, "acc": 91.0},
        lambda tensors, scalar: tensors,
    ],
)
def test_what_training_scripts_save(tmp_path, wrapped):
    """As pytorch/examples: tensors by name below, and a tensor of the best accuracy beside them."""
    torch = pytest.importorskip("torch")
    source = fill(tiny(shortcut="A"))
    tensors = {k: torch.from_numpy(v.copy()) for k, v in peer_tensors(source, naming_tables.PLAIN_CIFAR_RESNET).items()}
    torch.save(wrapped(tensors, torch.tensor(76.0)), tmp_path / "checkpoint.pth.tar")
    target = tiny(shortcut="A")
    kd.load_weights(target, tmp_path / "checkpoint.pth.tar")
    assert_same(target, arrays(source))
    torch.save({"optimizer": {"step": 3}}, tmp_path / "none.pth")
    with pytest.raises(ValueError, match="holds no named tensors"):
        kd.load_weights(target, tmp_path / "none.pth")


def test_saving_needs_a_known_format_and_a_folder(tmp_path):
    with pytest.raises(ValueError, match="weights are saved as"):
        kd.save_weights(tiny(), tmp_path / "x.npz")
    with pytest.raises(ValueError, match="there is no folder"):
        kd.save_weights(tiny(), tmp_path / "none" / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_which_network_is_found_from_its_parameters(tmp_path):
    source = fill(kd.ResNet20(classes=7))
    model = open_model(peer_tensors(source, naming_tables.PLAIN_CIFAR_RESNET))
    assert model.architecture["constructor"] == "ResNet20" and model.output_shape == (None, 7)
    assert_same(model, arrays(source))
    with pytest.raises(ValueError, match="matches no named network"):
        open_model(peer_tensors(tiny(shortcut="A"), naming_tables.PLAIN_CIFAR_RESNET))


@pytest.mark.parametrize("strict", [True, False])
def test_projections_that_stride_are_none_that_pool(strict):
    options = {"blocks": (1, 2), "filters": (8, 16), "input_shape": (32, 32, 3)}
    strided, pooled = (kd.ResNet(**options, shortcut=kind) for kind in "BD")
    tensors = peer_tensors(fill(strided), naming_tables.TORCHVISION_RESNET)
    before = arrays(pooled)
    with pytest.raises(
        ValueError, match=r"built with shortcut='D', which pools before them\. Build it with shortcut='B'"
    ):
        kd.load_weights(pooled, tensors, strict=strict)
    assert_same(pooled, before)
