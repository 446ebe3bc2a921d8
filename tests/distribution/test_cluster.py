"""The workers that the environment describes."""

import json

import pytest

from keras_deepnets import training
from keras_deepnets.distribution import Cluster, watched
from keras_deepnets.distribution.cluster import expand_counts, expand_hosts, from_environment
from keras_deepnets.distribution.modes import mode_of
from keras_deepnets.errors import InputError


def config(index=1, kind="worker", **jobs):
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})}


def test_tf_config():
    found = from_environment(config(worker=["a:1", "b:2"]))
    assert found == Cluster(("a:1", "b:2"), 1)
    assert from_environment({"TF_CONFIG": found.tf_config()}) == found
    with_chief = config(0, "worker", chief=["c:9"], worker=["a:1", "a:2"])
    assert from_environment(with_chief) == Cluster(("c:9", "a:1", "a:2"), 1)
    assert Cluster(("a:1", "a:2", "b:1"), 1).local_index == 1 and Cluster(("a:1", "a:2", "b:1"), 2).local_index == 0
    assert from_environment(config(0, worker=["a:1"])) is None and from_environment({}) is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TF_CONFIG": "{"}, "cannot be read"),
        ({"TF_CONFIG": '{"cluster": {}}'}, "cannot be read"),
        (config(5, worker=["a:1", "b:1"]), "number 5, and there are 2 workers"),
        (config(0, "ps", ps=["a:1"], worker=["b:1"]), "only workers are supported"),
        (config(0, worker=["a", "b:1"]), "worker 'a'; give host:port"),
    ],
)
def test_a_wrong_tf_config_is_refused(environment, message):
    with pytest.raises(InputError, match=message):
        from_environment(environment)


SLURM = {
    "SLURM_NTASKS": "3",
    "SLURM_PROCID": "2",
    "SLURM_STEP_NODELIST": "gpu[01-02]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
    "SLURM_JOB_ID": "40017",
}


def test_slurm():
    assert from_environment(SLURM) == Cluster(("gpu01:20017", "gpu01:20018", "gpu02:20017"), 2)
    assert from_environment(SLURM | {"SLURM_NTASKS": "1"}) is None
    with pytest.raises(InputError, match="2 hosts and SLURM_STEP_TASKS_PER_NODE 4 tasks"):
        from_environment(SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2(x2)"})
    with pytest.raises(InputError, match="SLURM_STEP_NODELIST is not set"):
        from_environment({name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"})


def test_lists_of_slurm():
    assert expand_hosts("gpu[01-03,7],login") == ["gpu01", "gpu02", "gpu03", "gpu7", "login"]
    assert expand_hosts("r[1-2]n[8-9]") == ["r1n8", "r1n9", "r2n8", "r2n9"]
    assert expand_hosts("node-5.x.org") == ["node-5.x.org"]
    assert expand_counts("2(x3),1") == [2, 2, 2, 1]
    for text in ("", "gpu[a-b]"):
        with pytest.raises(InputError):
            expand_hosts(text)
    with pytest.raises(InputError, match="not a list of task counts"):
        expand_counts("2(x")


def test_modes(monkeypatch):
    for name in ("TF_CONFIG", *SLURM):
        monkeypatch.delenv(name, raising=False)
    assert mode_of("none") == "none" and mode_of("auto") == "none"
    with pytest.raises(InputError, match="distribute='both' must be one of none, mirrored"):
        mode_of("both")
    with pytest.raises(InputError, match="needs at least two workers"):
        mode_of("multiworker")
    monkeypatch.setenv("TF_CONFIG", config(worker=["a:1", "b:2"])["TF_CONFIG"])
    assert mode_of("auto") == "multiworker"


def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(InputError, match="needs at least two GPUs"):
        training.train("resnet20", "digits", run_dir=tmp_path / "run", distribute="mirrored")
    with pytest.raises(InputError, match="checkpoint_every='often'"):
        training.train("resnet20", "digits", run_dir=tmp_path / "run", checkpoint_every="often")
    assert not (tmp_path / "run").exists()


class _Group:
    index, size = 0, 3

    left = False

    def abandon(self):
        self.left = True

    def name_of(self, index):
        return f"worker {index}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "Collective ops is aborted by: Error reported from /job:worker/task:2: The following tasks are unhealthy (stopped sending "
            "heartbeats):\n/job:worker/replica:0/task:2\n/job:worker/replica:0/task:1\nThe tasks have crashed.",
            "because there is no sign of life from worker 1 and worker 2. Start",
        ),
        ("Deadline Exceeded\n\nRPC: /tensorflow.CoordinationService/Heartbeat", "no sign of life from worker 0. Start"),
        ("Connection reset by peer", "because another worker stopped or cannot be reached. Start"),
    ],
)
def test_lost_workers_are_named(text, words):
    """The texts are those of TensorFlow 2.21."""
    import tensorflow as tf

    group = _Group()
    with pytest.raises(InputError, match=f"Worker 0 of 3 stops, .*{words}"), watched(group):
        raise tf.errors.UnavailableError(None, None, text)
    assert group.left


def test_lost_workers_of_jax():
    """The text is that of JAX 0.10."""
    text = "UNKNOWN: Gloo AllGather failed: [external/gloo/gloo/transport/tcp/pair.cc:538] Read error [::1]:9: Connection reset by peer"
    group = _Group()
    with pytest.raises(InputError, match="Worker 0 of 3 stops, because another worker stopped"), watched(group):
        raise ValueError(text)
    assert group.left


@pytest.mark.parametrize("error", [ZeroDivisionError(), ValueError("a negative number")])
def test_other_errors_pass(error):
    group = _Group()
    with pytest.raises(type(error)), watched(group):
        raise error
    assert not group.left
