"""Taking turns, and the arithmetic on what comes of it."""

import sys
from types import SimpleNamespace

import pytest

from keras_deepnets.benchmark import pairs
from keras_deepnets.benchmark.jobs import Configuration, Job
from keras_deepnets.benchmark.pairs import Plan, measure, ratios, take_turns
from keras_deepnets.benchmark.peers import Peer
from keras_deepnets.benchmark.process import Worker
from keras_deepnets.benchmark.results import share_of_ceiling
from keras_deepnets.benchmark.torch_side import geometry

from .common import fake, start_fake

CONFIGURATION = Configuration("resnet20", "train", "bfloat16", 4)


def steps(log):
    return [line.split()[0] for line in log.read_text().splitlines() if line.endswith(" step")]


def test_they_take_turns(tmp_path):
    log = tmp_path / "log"
    jobs = {name: fake(name, log=str(log)) for name in ("ours", "theirs")}
    measured = take_turns(jobs, "a test", Plan(warmup=3, pairs=7), start_fake)
    assert steps(log) == ["ours", "theirs"] * (3 + 7)
    assert [len(side.times) for side in measured.values()] == [7, 7]
    pids = {line for line in log.read_text().splitlines() if not line.endswith("step")}
    assert len(pids) == 2


@pytest.mark.parametrize(
    ("plan", "expected"), [(Plan(seconds=0), 5), (Plan(seconds=1e9), 30), (Plan(pairs=2, seconds=0), 2)]
)
def test_how_many_pairs(plan, expected):
    assert len(list(pairs._rounds(plan))) == expected


def test_ratios_are_taken_pair_by_pair():
    assert ratios([1.0, 2.0, 4.0], [2.0, 6.0, 2.0]) == [2.0, 3.0, 0.5]


class Scripted:
    """A worker whose steps take what is written."""

    def __init__(self, job, name, times):
        self.facts, self.times, self.name, self.pid = {}, iter(times), name, 0
        self.job = job

    def built(self):
        self.facts = {
            "import_seconds": 0.5,
            "build_seconds": 1.0,
            "parameters": 9,
            "image_size": 32,
            "device": "CPU",
            "versions": {"a": "1"},
        }
        if self.job.library == "ours":
            self.facts["multiply_adds"] = 2_000_000

    def step(self):
        return next(self.times)

    def ask(self, command):
        assert command == "memory"
        return {"activation_bytes": 11, "activation_source": "a book"}

    def quit(self):
        return {"process_peak_bytes": 22}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def test_results():
    times = {"ours": [9.0, 8.0, 1.0, 2.0, 2.0, 4.0], "pytorchcv": [7.0, 8.0, 2.0, 6.0, 2.0, 4.0]}
    jobs = []

    def start(job, name):
        jobs.append(job)
        return Scripted(job, name, times[job.library])

    peer = Peer("pytorchcv", ("resnet20_cifar10", {}), {"shortcut": "B"})
    ours, theirs = measure(CONFIGURATION, peer, Plan(pairs=4), gflops=0.048, start=start)
    assert [job.peer for job in jobs] == [None, ("resnet20_cifar10", {})]
    assert jobs[0].options == {"shortcut": "B"}
    assert {job.batch for job in jobs} == {4}
    # The ratios are 2, 3, 1 and 1; the ratio of the medians would be 3 / 2 too, that of the means 14 / 9.
    assert (ours.ratio_low, ours.ratio, ours.ratio_high) == (1.0, 1.5, 2.25)
    assert theirs.ratio == ours.ratio
    assert (ours.first_step_seconds, theirs.first_step_seconds) == (9.0, 7.0)
    assert (ours.import_seconds, ours.build_seconds) == (0.5, 1.0)
    assert (ours.ms_per_step, ours.images_per_second) == (2000.0, 2.0)
    assert (theirs.ms_per_step, theirs.images_per_second) == (3000.0, pytest.approx(4 / 3))
    assert ours.share_of_ceiling == pytest.approx(0.5)  # 2 · 2 M · 3 · 2 img/s of 48 MFLOP/s
    assert theirs.multiply_adds == 2_000_000  # it is the same network
    assert theirs.share_of_ceiling == pytest.approx(1 / 3)
    assert (ours.activation_bytes, ours.process_peak_bytes, ours.pairs) == (11, 22, 4)
    assert (ours.side, ours.network, theirs.side) == ("ours", "ours (shortcut=B)", "pytorchcv")
    assert theirs.network == "pytorchcv resnet20_cifar10"
    assert ours.against == theirs.against == "pytorchcv"


def test_ours_alone():
    (ours,) = measure(CONFIGURATION, None, Plan(pairs=2), start=lambda job, name: Scripted(job, name, [1.0] * 9))
    assert (ours.ratio, ours.against, ours.share_of_ceiling) == (None, "", None)


def test_a_twin_gets_our_options_and_ours_as_a_peer_has_its_own():
    jobs = {}

    def start(job, name):
        jobs[job.library] = job
        return Scripted(job, name, [1.0] * 9)

    options = {"dropout": 0.2}
    for library in ("keras-twin", "ours"):
        _, theirs = measure(CONFIGURATION, Peer(library, ("", {})), Plan(pairs=2), options=options, start=start)
    assert jobs["keras-twin"].options == {"dropout": 0.2}
    assert jobs["ours"].options == {}
    assert (theirs.side, theirs.network) == ("ours (default)", "ours, default options")


def test_share_of_ceiling():
    assert share_of_ceiling(4_000_000_000, "train", 10.0, 480.0) == pytest.approx(0.5)
    assert share_of_ceiling(4_000_000_000, "inference", 10.0, 480.0) == pytest.approx(0.5 / 3)


def test_ceiling_of_a_real_matrix_product():
    def start(job, name):
        assert (job.kind, job.dtype, job.size) == ("ceiling", "bfloat16", 64)
        return Worker(job, name, [sys.executable, "-m", "keras_deepnets.benchmark.worker"])

    assert pairs.ceiling("bfloat16", 64, start=start) > 0


def test_a_description_of_what_is_measured():
    assert str(CONFIGURATION) == "resnet20 train bfloat16 batch 4"
    assert str(Configuration("a", "inference", "float32", 1, 64)) == "a at 64² inference float32 batch 1"
    assert Job().kind == "network"


def test_images_have_the_size_of_the_peers_network():
    cifar = SimpleNamespace(in_size=(32, 32), num_classes=10)
    imagenet = SimpleNamespace(in_size=(224, 224), num_classes=1000)  # pytorchcv's too
    assert [geometry(each) for each in (cifar, imagenet, SimpleNamespace())] == [(32, 10), (224, 1000), (224, 1000)]
