"""The YAML of `examples/serving/`: parsed, and checked for what would only show at the first outage."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from keras_deepnets import data, export
from keras_deepnets.export import serving

EXAMPLES = Path(__file__).parents[2] / "examples" / "serving"
# Of tensorflow_model_server --help.
FLAGS = {
    "port",
    "rest_api_port",
    "rest_api_timeout_in_ms",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "allow_version_labels_for_unavailable_models",
    "file_system_poll_wait_seconds",
    "enable_batching",
    "batching_parameters_file",
    "monitoring_config_file",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
}
SERVER = {"app.kubernetes.io/name": "serving"}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((EXAMPLES / "docker-compose.yaml").read_text(encoding="utf-8"))["services"]["serving"]


@pytest.fixture(scope="module")
def manifests():
    """What kustomization.yaml lists, by kind; nothing else lies there."""
    folder = EXAMPLES / "kubernetes"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    listed = kustomization["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in folder.iterdir())
    parsed = [yaml.safe_load((folder / name).read_text(encoding="utf-8")) for name in listed]
    assert all({"apiVersion", "kind", "metadata", "spec"} <= set(manifest) for manifest in parsed)
    return {manifest["kind"]: manifest for manifest in [kustomization, *parsed]}


@pytest.fixture(scope="module")
def container(manifests):
    (found,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    return found


def flags(words):
    pairs = [re.fullmatch(r"--([a-z_]+)=(.+)", word).groups() for word in words]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_both_start_the_server_with_the_same_flags(compose, container):
    found = flags(container["args"])
    assert set(found) == FLAGS
    assert flags([word.replace("${MODEL:-digits}", "digits") for word in compose["command"]]) == found
    assert container["command"] == compose["entrypoint"] == ["tensorflow_model_server"]
    files = [found[key] for key in ("model_config_file", "batching_parameters_file", "monitoring_config_file")]
    names = (serving.MODELS_FILE, serving.BATCHING_FILE, serving.MONITORING_FILE)
    assert files == [f"/models/digits/{name}" for name in names]


def test_the_model_that_comes_with_the_package_can_be_served_at_once(compose, tmp_path):
    shipped = EXAMPLES.parents[1] / "savedmodels" / "digits"
    shutil.copytree(shipped / "1", tmp_path / "digits" / "1")
    cpus = float(compose["deploy"]["resources"]["limits"]["cpus"])
    for path in export.serving_config(tmp_path / "digits", threads=int(cpus)):
        assert (shipped / path.name).read_text() == path.read_text()
    card = json.loads((shipped / "1" / "model_card.json").read_text())
    assert card["data"] == card["accuracy"]["data"] == "digits"
    images, labels = next(iter(data.load("digits", "test").batches(1000)))
    found = export.predict(shipped, np.repeat(images, 3, axis=-1))["classes"]
    assert (
        np.mean(found == labels) == pytest.approx(card["accuracy"]["top-1"])
        and len(labels) == card["accuracy"]["images"]
    )
    assert f"| {card['accuracy']['top-1']:.2%} |".replace("%", " %") in (shipped.parent / "README.md").read_text()


def test_both_run_the_same_image(compose, manifests, container):
    (image,) = manifests["Kustomization"]["images"]
    assert container["image"] == image["name"] == "tensorflow/serving"
    assert compose["image"] == f"{image['name']}:${{TF_SERVING_VERSION:-{image['newTag']}}}"


def test_both_mount_the_models_read_only_where_the_configuration_says(compose, manifests, container):
    (volume,) = compose["volumes"]
    assert (volume["target"], volume["read_only"]) == ("/models", True)
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts["/models"]["readOnly"]
    volumes = {volume["name"]: volume for volume in manifests["Deployment"]["spec"]["template"]["spec"]["volumes"]}
    assert set(volumes) == {mount["name"] for mount in mounts.values()}
    claim = volumes[mounts["/models"]["name"]]["persistentVolumeClaim"]
    assert claim["claimName"] == manifests["PersistentVolumeClaim"]["metadata"]["name"]


def test_the_selectors_find_the_servers(manifests):
    deployment = manifests["Deployment"]["spec"]
    assert deployment["template"]["metadata"]["labels"] == deployment["selector"]["matchLabels"] == SERVER
    assert manifests["Service"]["spec"]["selector"] == SERVER
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == SERVER


def test_ports_and_probes_agree(compose, manifests, container):
    found = flags(container["args"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": int(found["port"]), "http": int(found["rest_api_port"])}
    assert {port["name"]: port["port"] for port in manifests["Service"]["spec"]["ports"]} == ports
    assert all(port["targetPort"] in ports for port in manifests["Service"]["spec"]["ports"])
    assert compose["ports"] == [f"{port}:{port}" for port in ports.values()]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/v1/models/digits", "port": "http"}
    assert container["livenessProbe"]["tcpSocket"] == {"port": "grpc"}
    annotations = manifests["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == serving.METRICS_PATH
    assert int(annotations["prometheus.io/port"]) == ports["http"]


def test_a_rollout_loses_no_request(manifests, container):
    spec = manifests["Deployment"]["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert spec["replicas"] > manifests["PodDisruptionBudget"]["spec"]["maxUnavailable"]
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    longest = int(flags(container["args"])["rest_api_timeout_in_ms"]) / 1000
    assert program == "sleep" and longest < int(seconds) < spec["template"]["spec"]["terminationGracePeriodSeconds"]
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] <= spec["progressDeadlineSeconds"]


def test_resources_and_rights(compose, manifests, container):
    cores = flags(container["args"])["tensorflow_intra_op_parallelism"]
    assert container["resources"]["requests"]["cpu"] == compose["deploy"]["resources"]["limits"]["cpus"] == cores
    assert container["resources"]["limits"]["memory"] == "4Gi"
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    assert container["securityContext"]["readOnlyRootFilesystem"] and compose["read_only"]


@pytest.mark.parametrize(("model", "expected"), [("tiny", 0), ("unknown", 1)])
def test_the_health_check_of_compose_runs(model, expected, compose, stand_in):
    """The command as the container runs it, with the stand-in's port."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    kind, *command = compose["healthcheck"]["test"]
    assert kind == "CMD"
    port = stand_in.url.rsplit(":", 1)[1]
    command = [word.replace("$$", "$").replace("8501", port) for word in command]

    def status():
        environment = {"MODEL": model, "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, env=environment, timeout=30, capture_output=True, check=False).returncode

    assert status() == expected
    stand_in.stop()
    assert status() == 1  # nobody listens


def test_kustomize_renders_the_manifests(manifests):
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")
    command = ["kubectl", "kustomize", str(EXAMPLES / "kubernetes")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    rendered = {manifest["kind"]: manifest for manifest in yaml.safe_load_all(done.stdout)}
    assert set(rendered) == set(manifests) - {"Kustomization"}
    (container,) = rendered["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"tensorflow/serving:{manifests['Kustomization']['images'][0]['newTag']}"


def test_the_readme_names_files_and_flags_that_are_there():
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"`([a-z_/-]+\.(?:py|yaml))`", text):
        assert (EXAMPLES / name).is_file(), name
    for path in EXAMPLES.glob("*.*"):
        assert path.name in text or path.name == "README.md"
    for flag in re.findall(r"`--([a-z]+_[a-z_]+)", text):
        assert flag in FLAGS, flag
