"""Loading of files with torchvision's names: old and new ones, the layout, and what is refused."""

import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import detection
from keras_deepnets.weights import naming_tables
from keras_deepnets.weights.names import weights_by_name
from tests.detection import common

pytestmark = pytest.mark.integration

V1, V2 = naming_tables.TORCHVISION_FASTER_RCNN, naming_tables.TORCHVISION_FASTER_RCNN_V2
TWO = {"pyramid_norm": True, "rpn_depth": 2, "head": "convolutional", "frozen_batch_norm": False}


def build(version, **kwargs):
    """A small detector in the form of one of torchvision's versions."""
    return common.small_detector(**((TWO if version is V2 else {}) | kwargs))


def state_of(model, version, rng):
    """Random tensors with torchvision's names and shapes."""
    found = {}
    for name, weight in weights_by_name(model).items():
        shape = version.their_shape(tuple(weight.shape), name.rpartition("/")[0])
        # Of two names of this layer, the naming gives the old one.
        theirs = version.theirs(name).replace("rpn.head.conv.weight", "rpn.head.conv.0.0.weight")
        theirs = theirs.replace("rpn.head.conv.bias", "rpn.head.conv.0.0.bias")
        found[theirs] = rng.uniform(0.5, 1.5, shape).astype("float32")
    return found


def old_names(state):
    """The names of torchvision before 0.14, which its first files have."""
    found = {}
    for name, value in state.items():
        if ".fpn." in name:
            name = name.replace("_blocks.0.0.", "_blocks.0.").replace("_blocks.1.0.", "_blocks.1.")
            name = name.replace("_blocks.2.0.", "_blocks.2.").replace("_blocks.3.0.", "_blocks.3.")
        found[name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")] = value
    return found


@pytest.mark.parametrize("version", [V1, V2], ids=["v1", "v2"])
def test_torchvisions_names_load_into_the_right_layers(rng, version):
    model = build(version)
    state = state_of(model, version, rng)
    report = kd.load_weights(model, dict(state))
    assert report.complete and report.loaded == len(state) and report.naming == version.name
    weights = {name: np.array(value) for name, value in weights_by_name(model).items()}

    def kernel(name):
        return state[name].transpose(2, 3, 1, 0)

    pairs = {
        "conv1_conv/kernel": kernel("backbone.body.conv1.weight"),
        "conv4_block1_0_conv/kernel": kernel("backbone.body.layer3.0.downsample.0.weight"),
        "conv5_block1_2_bn/moving_mean": state["backbone.body.layer4.0.bn2.running_mean"],
        "fpn_inner2_conv/kernel": kernel("backbone.fpn.inner_blocks.0.0.weight"),
        "fpn_layer5_conv/kernel": kernel("backbone.fpn.layer_blocks.3.0.weight"),
        "rpn_conv1/kernel": kernel("rpn.head.conv.0.0.weight"),
        "rpn_objectness/kernel": kernel("rpn.head.cls_logits.weight"),
        "rpn_deltas/bias": state["rpn.head.bbox_pred.bias"],
        "predictions/kernel": state["roi_heads.box_predictor.cls_score.weight"].T,
        "predictions_boxes/kernel": state["roi_heads.box_predictor.bbox_pred.weight"].T,
    }
    if version is V2:
        pairs |= {
            "fpn_inner3_bn/moving_variance": state["backbone.fpn.inner_blocks.1.1.running_var"],
            "rpn_conv2/kernel": kernel("rpn.head.conv.1.0.weight"),
            "head_conv1_conv/kernel": kernel("roi_heads.box_head.0.0.weight"),
            "head_conv4_bn/gamma": state["roi_heads.box_head.3.1.weight"],
        }
    else:
        pairs["head_fc7/kernel"] = state["roi_heads.box_head.fc7.weight"].T
    for name, expected in pairs.items():
        np.testing.assert_array_equal(weights[name], expected, err_msg=name)


@pytest.mark.parametrize(
    ("version", "name"), [(V1, "roi_heads.box_head.fc6"), (V2, "roi_heads.box_head.5")], ids=["v1", "v2"]
)
def test_the_first_layer_of_the_head_reads_channels_first(rng, version, name):
    model = build(version)
    state = state_of(model, version, rng)
    kd.load_weights(model, dict(state))
    channels = 256 if version is V2 else 16
    features = rng.normal(size=(1, 7, 7, channels)).astype("float32")
    layer = model.get_layer("head").get_layer("head_fc6")
    ours = np.asarray(layer(features.reshape(1, -1)))
    theirs = features.transpose(0, 3, 1, 2).reshape(1, -1) @ state[f"{name}.weight"].T + state[f"{name}.bias"]
    np.testing.assert_allclose(ours, np.maximum(theirs, 0), rtol=1e-4, atol=1e-2)


def test_old_names_load_as_the_new_ones(rng):
    model, other = build(V1), build(V1)
    state = state_of(model, V1, rng)
    old = old_names(state)
    for name in ("backbone.fpn.inner_blocks.0.weight", "backbone.fpn.layer_blocks.3.bias", "rpn.head.conv.weight"):
        assert name in old and name not in state
    assert len(old) == len(state)
    kd.load_weights(model, dict(state))
    assert kd.load_weights(other, old).complete
    for ours, theirs in zip(model.weights, other.weights, strict=True):
        if "seed" not in ours.path:
            np.testing.assert_array_equal(ours, theirs)


def test_counters_of_batches_and_prefixes_do_not_matter(rng):
    model = build(V1)
    state = state_of(model, V1, rng) | {"backbone.body.bn1.num_batches_tracked": np.array(3)}
    report = kd.load_weights(model, {f"module.{name}": value for name, value in state.items()})
    assert report.complete


@pytest.mark.parametrize("version", [V1, V2], ids=["v1", "v2"])
def test_a_missing_an_extra_and_a_wrong_tensor_are_refused_by_name(rng, version):
    model = build(version)
    before = [np.array(weight) for weight in model.weights]
    state = state_of(model, version, rng)
    missing = {name: value for name, value in state.items() if name != "rpn.head.bbox_pred.bias"}
    with pytest.raises(ValueError, match="missing: rpn_deltas/bias"):
        kd.load_weights(model, missing)
    extra = state | {"roi_heads.mask_head.mask_fcn1.weight": np.zeros(3, "float32")}
    with pytest.raises(ValueError, match=r"unused: roi_heads.mask_head.mask_fcn1.weight"):
        kd.load_weights(model, extra)
    wrong = state | {"backbone.body.bn1.weight": np.zeros(3, "float32")}
    with pytest.raises(ValueError, match=r"conv1_bn/gamma: \(3,\) there, \(8,\) here"):
        kd.load_weights(model, wrong)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_a_file_of_the_other_version_is_refused(rng):
    state = state_of(build(V2), V2, rng)
    with pytest.raises(ValueError, match="do not fit"):
        kd.load_weights(build(V1), state)


def test_the_head_of_another_number_of_classes(rng):
    state = state_of(build(V1, classes=7), V1, rng)
    model = build(V1)
    with pytest.raises(ValueError, match=r"predictions/kernel: \(1024, 7\) there, \(1024, 5\) here") as caught:
        kd.load_weights(model, dict(state))
    assert "skip_head=True" in str(caught.value)
    report = kd.load_weights(model, dict(state), skip_head=True)
    assert len(report.skipped) == 4 and report.loaded == len(state) - 4


def test_weights_files_of_detectors_open_by_themselves(tmp_path):
    options = {"proposals": 20, "candidates": 60, "min_size": 64, "max_size": 96, "pyramid_channels": 8}
    model = detection.FasterRCNN("resnet18", 3, **options)
    path = kd.save_weights(model, tmp_path / "weights.safetensors")
    again = kd.weights.open_model(path)
    assert isinstance(again, detection.Detector)
    assert (again.classes, again.min_size, again.max_size) == (3, 64, 96)
    expected = {name: np.asarray(value) for name, value in model(common.images()).items()}
    for name, value in again(common.images()).items():
        np.testing.assert_array_equal(value, expected[name])


def test_a_named_detector_opens_from_torchvisions_names(rng, tmp_path):
    state = state_of(build(V1), V1, rng)
    with pytest.raises(ValueError, match="name the network"):
        kd.weights.open_model(dict(state))
    with pytest.raises(ValueError, match="fasterrcnn_resnet50_fpn: the weights in"):
        kd.weights.open_model(dict(state), "FasterRCNN_ResNet50_FPN")
