"""`precision="auto"`: decided by the device and the network, alike each time, and kept with the run."""

import json

import keras
import pytest

import keras_deepnets as kd
from keras_deepnets import models, training
from keras_deepnets.training import precision as precisions
from tests.training.common import images


@pytest.fixture
def cpu(monkeypatch):
    """A CPU with or without bfloat16 instructions, whatever the tests run on."""

    def with_bfloat16(there):
        monkeypatch.setattr(precisions, "_compute_capability", lambda: None)
        monkeypatch.setattr(precisions.processor, "has_bfloat16", lambda: there)

    return with_bfloat16


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((9, 0), "mixed_bfloat16"), ((8, 0), "mixed_bfloat16"), ((7, 5), "mixed_float16"), ((6, 1), "float32")],
)
def test_a_gpu_decides_by_its_generation(monkeypatch, capability, expected):
    monkeypatch.setattr(precisions, "_compute_capability", lambda: capability)
    chosen = precisions.automatic(lambda: pytest.fail("the network does not matter"))
    assert chosen == (expected, f"auto: compute capability {capability[0]}.{capability[1]}")


def small(filters, **options):
    return kd.ResNet(depth=8, stem="cifar", filters=filters, **options)


# Those that docs/benchmarks.md has measured, by how many channels they have.
NETWORKS = [
    (lambda: kd.ResNet20(), "mixed_bfloat16"),
    (lambda: small((16, 32, 64), block_layers=True), "mixed_bfloat16"),
    (lambda: kd.DenseNet(depth=40, growth_rate=12, stem="cifar"), "mixed_bfloat16"),
    (lambda: kd.DenseNet(depth=22, growth_rate=12, stem="cifar", memory_efficient=True), "mixed_bfloat16"),
    (lambda: kd.ResNeXt(blocks=(1, 1), filters=(64, 128), input_shape=(32, 32, 3)), "mixed_bfloat16"),
    (lambda: kd.Highway1(), "mixed_bfloat16"),
    (lambda: small((8, 64, 128)), "mixed_bfloat16"),
    (lambda: kd.HighwayMLP10(), "mixed_bfloat16"),
    (lambda: small((12, 24, 48)), "float32"),
    (lambda: small((20, 40, 80)), "float32"),
    (lambda: small((24, 48, 96)), "float32"),
    (lambda: small((8, 16, 32)), "float32"),
    (lambda: small((8, 16, 32), block_layers=True), "float32"),
    (lambda: small((4, 8, 16)), "float32"),
    (lambda: kd.DenseNet(depth=22, growth_rate=8, stem="cifar"), "mixed_bfloat16"),
    (lambda: kd.DenseNet(depth=22, growth_rate=4, stem="cifar"), "float32"),
    (lambda: keras.Sequential([keras.Input((32, 32, 3)), small((8, 16, 32))]), "float32"),
]


def test_a_detector_decides_by_its_backbone(cpu):
    """Its own input has no fixed size."""
    cpu(True)
    for filters, expected in (((16, 16, 32, 32), "mixed_bfloat16"), ((8, 8, 24, 24), "float32")):
        backbone = kd.ResNet(include_top=False, blocks=(1, 1, 1, 1), filters=filters)
        detector = kd.detection.FasterRCNN(
            backbone, 3, pyramid_channels=16, frozen_batch_norm=False, min_size=64, max_size=64
        )
        assert precisions.automatic(detector.fixed_body).policy == expected


@pytest.mark.parametrize(("build", "expected"), NETWORKS)
def test_a_cpu_decides_by_the_networks_channels(cpu, build, expected):
    cpu(True)
    chosen = precisions.automatic(build)
    assert chosen.policy == expected and chosen.reason.startswith("auto: ")
    assert precisions.automatic(build) == chosen  # nothing is timed
    cpu(False)
    assert precisions.automatic(build) == ("float32", "auto: the CPU has no bfloat16 instructions")


def test_the_share_of_uneven_convolutions():
    """Of a ResNet-8 of 8, 16, 32 filters: the first block's convolutions, the second's first and its projection."""
    model = small((8, 16, 32))
    first_block, second, projection = 2 * 32 * 32 * 9 * 8 * 8, 16 * 16 * 9 * 8 * 16, 16 * 16 * 8 * 16
    expected = (first_block + second + projection) / models.multiply_adds(model)
    assert precisions.uneven_share(model) == pytest.approx(expected)
    assert precisions.uneven_share(small((24, 48, 96))) == pytest.approx(0.49, abs=0.01)
    assert precisions.uneven_share(kd.ResNet20()) == 0


def test_the_choice_is_recorded_and_kept_on_resuming(tmp_path, cpu, capsys):
    """Another machine, by whose instructions the rule decides otherwise, goes on in the numbers of the first."""
    arguments = {"recipe": "fast", "epochs": 2, "batch_size": 32, "precision": "auto", "verbose": 0}

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    cpu(True)
    with pytest.raises(KeyboardInterrupt):
        training.train("highwaymlp10", images(), run_dir=tmp_path / "run", callbacks=[Stop()], **arguments)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["precision"] == "auto"
    assert config["resolved"]["precision"] == "mixed_bfloat16"
    assert config["resolved"]["precision_reason"] == "auto: the CPU has bfloat16 instructions"
    cpu(False)
    run = training.train("highwaymlp10", images(), run_dir=tmp_path / "run", **arguments)
    assert len(run.history["loss"]) == 2
    assert precisions.policy_of(run.model) == "mixed_bfloat16"
    other = training.train("highwaymlp10", images(), run_dir=tmp_path / "other", **arguments)
    assert precisions.policy_of(other.model) == "float32"


def test_float64_needs_tensorflow(tmp_path, monkeypatch):
    precisions.check("float64")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(
        kd.InputError, match=r"precision='float64' needs the TensorFlow backend, and the backend is jax\."
    ):
        training.train("resnet20", images(), run_dir=tmp_path / "run", precision="float64")
    assert not any(tmp_path.iterdir())
