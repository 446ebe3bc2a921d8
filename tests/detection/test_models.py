"""The detectors: parameters, signatures, backbones, files, records and errors."""

import inspect
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import detection
from tests.detection import common

pytestmark = pytest.mark.integration

FEW = {"candidates": 60, "proposals": 20, "min_size": 64, "max_size": 96}


@pytest.fixture(scope="module")
def model():
    return common.small_detector()


def run(model, **kwargs):
    return {name: np.asarray(value) for name, value in model(common.images(**kwargs)).items()}


def assert_equal(found, expected):
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def parameters(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


# torchvision's: sum(p.numel() for p in net.parameters()). With FrozenBatchNorm2d the norms have none.
@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("FasterRCNN_ResNet50_FPN", {}, 41_755_286),
        ("FasterRCNN_ResNet50_FPN", {"frozen_batch_norm": False}, 41_808_406),
        ("FasterRCNN_ResNet50_FPN_V2", {}, 43_712_278),
    ],
)
def test_parameters_are_those_of_torchvision(name, options, count):
    model = getattr(detection, name)(**options)
    assert parameters(model.trainable_weights) == count
    assert model.name == name.lower() and model.classes == 91 and (model.min_size, model.max_size) == (800, 1333)


def test_signatures():
    options = {
        "frozen_batch_norm": True,
        "min_size": 800,
        "max_size": 1333,
        "score_threshold": 0.05,
        "nms_threshold": 0.5,
        "detections": 100,
        "anchor_sizes": (32, 64, 128, 256, 512),
        "anchor_ratios": (0.5, 1.0, 2.0),
        "candidates": 1000,
        "proposals": 1000,
        "training_candidates": 2000,
        "training_proposals": 2000,
        "proposal_nms_threshold": 0.7,
    }
    parameters = inspect.signature(detection.FasterRCNN_ResNet50_FPN).parameters
    found = {name: each.default for name, each in parameters.items()}
    first = {"weights": None, "classes": 91, "weights_backbone": None, "name": "fasterrcnn_resnet50_fpn"}
    assert found == first | options | {"pyramid_channels": 256}
    assert [name for name, each in parameters.items() if each.kind is not each.KEYWORD_ONLY] == ["weights", "classes"]
    single = {name: each.default for name, each in inspect.signature(detection.FasterRCNN_VGG16).parameters.items()}
    expected = {"classes": 21, "min_size": 600, "max_size": 1000, "proposals": 300, "anchor_sizes": (128, 256, 512)}
    assert {name: single[name] for name in expected} == expected


def test_registry():
    names = ["fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet101_c4", "fasterrcnn_vgg16"]
    assert kd.list_models(task="detection") == names
    assert not set(names) & set(kd.list_models(task="classification"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["FasterRCNN_ResNet101_C4", "FasterRCNN_VGG16"])
def test_networks_of_one_feature_map(name):
    model = getattr(detection, name)(**FEW, anchor_sizes=(16, 32, 64))
    # The activations of an untrained network are so large that all boxes would lie outside.
    last = (("rpn", "rpn_deltas"), ("rpn", "rpn_objectness"), ("head", "predictions"), ("head", "predictions_boxes"))
    for part, layer in last:
        kernel = model.get_layer(part).get_layer(layer).kernel
        kernel.assign(kernel * 1e-5)
    model.get_layer("head").get_layer("predictions").bias.assign(np.arange(21) / 10)
    found = run(model)
    assert found["boxes"].shape == (2, 100, 4) and found["count"].min() > 0
    assert (found["boxes"][1, :, 2] <= 70).all() and (found["boxes"][1, :, 3] <= 50).all()
    assert model.get_layer("body").output["P4"].shape[-1] == (1024 if "ResNet" in name else 512)
    body = model.get_layer("body")(common.images()["images"])
    assert body["P4"].shape[1:3] == (4, 6)


@pytest.mark.parametrize("form", ["c4", "vgg"])
def test_small_networks_of_one_feature_map(form):
    network = (
        common.backbone()
        if form == "c4"
        else kd.VGG(convolutions=(1,) * 5, filters=(4, 8, 8, 16, 16), hidden=(24, 8), input_shape=(None, None, 3))
    )
    model = detection.FasterRCNN(network, 5, form=form, anchor_sizes=(16, 32), **FEW)
    found = run(model)
    assert found["boxes"].shape == (2, 100, 4)
    assert model.get_layer("body")(common.images()["images"])["P4"].shape == (2, 4, 6, 32 if form == "c4" else 16)
    # Each position has 2 · 3 anchors. The last stage of the residual network halves the 14 × 14 of a region.
    assert model.get_layer("rpn").output[0].shape[-1] == 6
    assert model.get_layer("region_align").size == (14 if form == "c4" else 7)
    assert model.get_layer("head").get_layer("predictions").kernel.shape == (64 if form == "c4" else 8, 5)


@pytest.mark.parametrize(
    "build",
    [
        lambda: kd.DenseNet(blocks=(1, 1, 1, 1), growth_rate=4, include_top=False, input_shape=(None, None, 3)),
        lambda: kd.ResNeXt(blocks=(1, 1, 1, 1), groups=2, base_width=4, include_top=False, input_shape=(None, None, 3)),
        lambda: "resnet18",
    ],
)
def test_backbones(build):
    model = detection.FasterRCNN(build(), 3, pyramid_channels=16, anchor_sizes=(8, 16, 32, 64, 128), **FEW)
    found = run(model)
    assert found["boxes"].shape == (2, 100, 4) and np.isfinite(found["scores"]).all() and found["count"].max() > 0
    maps = model.get_layer("body")(common.images()["images"])
    assert {name: each.shape[1:] for name, each in maps.items()} == {
        f"P{level}": (max(1, 64 // 2**level), -(-96 // 2**level), 16) for level in range(2, 7)
    }
    assert (found["boxes"] >= 0).all() and (found["boxes"][1, :, 2] <= 70).all()


def test_the_padding_does_not_matter_to_where_boxes_lie(model):
    first = common.images()
    second = {"images": first["images"].copy(), "sizes": first["sizes"]}
    second["images"][1, 50:] = 77.0
    second["images"][1, :, 70:] = 99.0
    assert_equal(model(second), {name: np.asarray(value) for name, value in model(first).items()})


def test_training_mode_gives_the_same_detections(model):
    inputs = common.images()
    assert_equal(model(inputs, training=True), {name: np.asarray(value) for name, value in model(inputs).items()})


def test_a_saved_model_in_a_fresh_process(model, tmp_path):
    expected = run(model)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "inputs.npz", **common.images())
    code = (
        "import keras, numpy as np, sys\n"
        "import keras_deepnets\n"
        "folder = sys.argv[1]\n"
        "model = keras.saving.load_model(folder + '/model.keras')\n"
        "found = model(dict(np.load(folder + '/inputs.npz')))\n"
        "np.savez(folder + '/found.npz', **{name: np.asarray(value) for name, value in found.items()})\n"
        "print(type(model).__name__, model.classes, model.min_size, model.max_size, model.scaling)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:4] == ["Detector", "5", "64", "96"]
    assert_equal(dict(np.load(tmp_path / "found.npz")), expected)


@pytest.mark.parametrize("suffix", [".safetensors", ".weights.h5"])
def test_weight_files(model, tmp_path, suffix):
    path = kd.save_weights(model, tmp_path / f"weights{suffix}")
    other = common.small_detector()
    assert not np.array_equal(run(other)["scores"], run(model)["scores"])
    report = kd.load_weights(other, path)
    assert report.complete and report.loaded == len(model.weights) - len(
        [weight for weight in model.weights if "seed" in weight.path]
    )
    assert_equal(run(other), run(model))
    third = common.small_detector(weights=path)
    assert_equal(run(third), run(model))


def test_skip_head_keeps_the_last_layers(model, tmp_path):
    path = kd.save_weights(model, tmp_path / "weights.safetensors")
    other = common.small_detector(3)
    last = {weight.path: np.array(weight) for weight in other.weights if "predictions" in weight.path}
    report = kd.load_weights(other, path, skip_head=True)
    expected = {f"{name}/{part}" for name in ("predictions", "predictions_boxes") for part in ("kernel", "bias")}
    assert set(report.skipped) == expected and len(last) == 4
    pairs = zip(model.weights, other.weights, strict=True)
    for ours, theirs in pairs:
        if "predictions" in theirs.path:
            np.testing.assert_array_equal(theirs, last[theirs.path])
        else:
            np.testing.assert_array_equal(theirs, ours)


def test_weights_of_other_numbers_of_classes_are_refused_in_one_line(model, tmp_path):
    path = kd.save_weights(model, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="predictions") as caught:
        common.small_detector(3, weights=path)
    message = str(caught.value)
    assert "\n" not in message and "(32, 5)" not in message and "5" in message and "3" in message
    assert "skip_head=True" in message


def test_the_backbone_gets_the_weights_of_the_classifier(tmp_path, rng):
    classifier = kd.ResNet18(classes=7, input_shape=(None, None, 3))
    for weight in classifier.weights:
        if weight.path.endswith(("moving_variance", "gamma")):
            weight.assign(rng.uniform(0.01, 0.5, weight.shape))
    path = kd.save_weights(classifier, tmp_path / "classifier.safetensors")
    model = detection.FasterRCNN("resnet18", 3, weights_backbone=path, **FEW)
    body = model.get_layer("body")
    x = rng.normal(size=(1, 64, 64, 3)).astype("float32")
    for frozen in (True, False):
        model = detection.FasterRCNN("resnet18", 3, weights_backbone=path, frozen_batch_norm=frozen, **FEW)
        body = model.get_layer("body")
        norms = [layer for layer in body.layers if isinstance(layer, keras.layers.BatchNormalization)]
        assert {layer.epsilon for layer in norms} == ({0.0} if frozen else {1e-5})
        assert {layer.trainable for layer in norms} == {not frozen}
        for stage in ("conv2_block2_out", "conv3_block2_out", "conv5_block2_out"):
            ours = keras.Model(body.input, body.get_layer(stage).output)(x)
            theirs = keras.Model(classifier.input, classifier.get_layer(stage).output)(x)
            largest = float(np.abs(theirs).max())
            np.testing.assert_allclose(ours, theirs, atol=1e-5 * largest)


def test_a_copy_keeps_the_record(model):
    copy = keras.models.clone_model(model)
    assert isinstance(copy, detection.Detector)
    assert (copy.classes, copy.min_size, copy.max_size) == (5, 64, 96)
    assert copy.architecture == model.architecture and copy.scaling == model.scaling
    copy.set_weights(model.get_weights())
    assert_equal(run(copy), run(model))


def test_errors(model, tmp_path):
    build = common.small_detector
    for changes, message in (
        ({"classes": 1}, "classes=1 must count the background"),
        ({"classes": 0}, "classes=0"),
        ({"score_threshold": 1.5}, "score_threshold=1.5 must be a number in"),
        ({"min_size": 200}, "min_size=200 must be at most max_size=96"),
        ({"proposals": 0}, "proposals=0"),
        ({"anchor_ratios": ()}, r"anchor_ratios=\(\) must be a tuple of positive numbers"),
        ({"anchor_sizes": (8, 16)}, r"anchor_sizes=\(8, 16\) must have one size for each of the 5 levels P2 to P6"),
        ({"head": "wide"}, "head='wide'"),
        ({"form": "ssd"}, "form='ssd'"),
        ({"weights_backbone": "x.safetensors"}, "weights_backbone belongs to a named backbone"),
        ({"weights": tmp_path / "missing.safetensors"}, "missing.safetensors"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            build(**changes)
        assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match="min_siz"):
        build(min_siz=3)
    with pytest.raises(TypeError, match="growth_rate"):
        detection.FasterRCNN_ResNet50_FPN(growth_rate=3)
    with pytest.raises(ValueError, match="resnet19"):
        detection.FasterRCNN("resnet19", 3)
    flat = kd.ResNet(blocks=(1, 1), filters=(8, 16), stem="cifar", include_top=False, input_shape=(None, None, 3))
    with pytest.raises(ValueError, match=r"a detector needs P2 to P4 \(strides 4 to 16\)"):
        detection.FasterRCNN(flat, 3)
