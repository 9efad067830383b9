"""The Kubernetes manifests, as `kubectl kustomize` renders them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from base64 import b64decode
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.contract.documents.markdown import read_blocks
from tests.deploy.platforms.gateways import fill_in, serve_and_predict
from tests.support.paths import BIN, ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
PAGE = ROOT / "docs" / "deploy" / "kubernetes.md"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
VERSIONS = ("1.30", "1.37")
"""The versions of Kubernetes whose schemas the manifests must follow."""


@cache
def render(folder: Path) -> str:
    command: list[str | Path] = [BIN / "kubectl", "kustomize", folder]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@cache
def read(overlay: str) -> dict[str, Any]:
    """Return the objects of an overlay by kind. Only the Deployment and the CronJob have pods."""
    return {each["kind"]: each for each in yaml.safe_load_all(render(FOLDER / "overlays" / overlay))}


def gateway(overlay: str) -> Any:
    return read(overlay)["Deployment"]["spec"]["template"]["spec"]["containers"][0]


def pods(overlay: str) -> Iterator[Any]:
    yield read(overlay)["Deployment"]["spec"]["template"]["spec"]
    yield read(overlay)["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_follow_the_schemas(overlay: str) -> None:
    """Every object follows its schema without unknown fields; only the operator's ServiceMonitor has no schema."""
    unknown = set()
    for version, (kind, manifest) in product(VERSIONS, read(overlay).items()):
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            unknown.add(kind)
    assert unknown <= {"ServiceMonitor"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_meet_the_restricted_standard(overlay: str) -> None:
    """The namespace enforces the restricted pod security standard, and each pod meets it with a read-only root."""
    labels = read(overlay)["Namespace"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in pods(overlay):
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {kind for volume in pod["volumes"] for kind in set(volume) - {"name"}} <= {
            "emptyDir",
            "persistentVolumeClaim",
            "secret",
        }
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert pod["automountServiceAccountToken"] is False
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_run_as_the_user_of_the_image(overlay: str) -> None:
    """The pods run as the user and the group that the image creates for the gateway."""
    (user, group) = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1]
    for pod in pods(overlay):
        context = pod["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (int(user), int(group), int(group))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_different_questions(overlay: str) -> None:
    """Readiness is probed at /readyz, start-up and liveness at /livez; a pod may take at least 60 s to start."""
    container = gateway(overlay)
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
    paths = {kind: probe["httpGet"]["path"] for kind, probe in probes.items()}
    assert paths == {"startup": "/livez", "readiness": "/readyz", "liveness": "/livez"}
    startup = probes["startup"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 60


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_shutdown_fits_the_grace_period(overlay: str) -> None:
    """The grace period covers DRAIN_SECONDS and 8 s to shut down; a draining pod becomes unready in time."""
    drain = float(read(overlay)["ConfigMap"]["data"]["DRAIN_SECONDS"])
    pod = read(overlay)["Deployment"]["spec"]["template"]["spec"]
    readiness = gateway(overlay)["readinessProbe"]
    assert drain + 8 < pod["terminationGracePeriodSeconds"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < drain


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ports_agree(overlay: str) -> None:
    """Settings, container, service and network policy use the same two ports; the policy limits who may reach each."""
    settings = read(overlay)["ConfigMap"]["data"]
    ports = {port["name"]: port["containerPort"] for port in gateway(overlay)["ports"]}
    assert ports == {"http": int(settings["PORT"]), "metrics": int(settings["METRICS_PORT"])}
    assert {port["targetPort"] for port in read(overlay)["Service"]["spec"]["ports"]} == set(ports)
    ingress = read(overlay)["NetworkPolicy"]["spec"]["ingress"]
    sources = {rule["ports"][0]["port"]: rule["from"][0]["namespaceSelector"]["matchLabels"] for rule in ingress}
    name = "kubernetes.io/metadata.name"
    assert sources == {"http": {name: "ingress-nginx"}, "metrics": {name: "monitoring"}}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_image_is_this_release(overlay: str) -> None:
    """Both pods run the image of this release, never `latest`."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {pod["containers"][0]["image"] for pod in pods(overlay)}
    assert len(images) == 1
    assert images.pop().endswith(f"atalaya:{version}")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_contain_no_secret(overlay: str) -> None:
    """The manifests contain no Secret: pods mount the one that the page creates, where the gateway reads it."""
    assert "Secret" not in read(overlay)
    for pod in pods(overlay):
        (container,) = pod["containers"]
        config = read(overlay)["ConfigMap"]["metadata"]["name"]
        assert container["envFrom"] == [{"configMapRef": {"name": config}}]
        assert "env" not in container
        (volume,) = [volume for volume in pod["volumes"] if "secret" in volume]
        assert volume["secret"]["secretName"] == "atalaya"
        assert volume["secret"]["defaultMode"] == 0o440  # for the group of the process, which `fsGroup` sets
        (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == volume["name"]]
        assert read(overlay)["ConfigMap"]["data"]["SECRETS__URL"] == f"file://{mount['mountPath']}"


def test_production_keeps_replicas_available() -> None:
    """At least two replicas run, at most one is evicted at a time, and only the autoscaler sets their number."""
    objects = read("production")
    assert objects["HorizontalPodAutoscaler"]["spec"]["minReplicas"] >= 2
    assert "replicas" not in objects["Deployment"]["spec"]
    budget = objects["PodDisruptionBudget"]["spec"]
    assert budget["maxUnavailable"] == 1
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert budget["selector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"


def test_many_pods_share_one_registry() -> None:
    """In the overlay `scale`, each pod, even the CronJob's, mounts the shared volume at the path in MODEL__REGISTRY."""
    objects = read("scale")
    claim = objects["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods("scale"):
        (volume,) = [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
        assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
        (container,) = pod["containers"]
        (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == volume["name"]]
        assert objects["ConfigMap"]["data"]["MODEL__REGISTRY"] == f"file://{mount['mountPath']}"
    assert objects["HorizontalPodAutoscaler"]["spec"]["minReplicas"] >= 3


def test_the_documented_overlay_opens_the_port_of_engines(tmp_path: Path) -> None:
    """The overlay in docs/deploy/scale.md renders, and adds the engines' port to the allowed egress."""
    ((_, block),) = read_blocks(ROOT / "docs" / "deploy" / "scale.md", "### A port for engines in Kubernetes")
    overlays = os.path.relpath(FOLDER / "overlays", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(block.replace("../", f"{overlays}/"))
    objects = {each["kind"]: each for each in yaml.safe_load_all(render(tmp_path))}
    *before, added = objects["NetworkPolicy"]["spec"]["egress"]
    assert before == read("scale")["NetworkPolicy"]["spec"]["egress"]
    assert added == {"ports": [{"port": 8000}]}


def test_monitor_selects_the_service() -> None:
    """The ServiceMonitor finds the gateway's service and scrapes it under the job name of dashboards and alerts."""
    monitor, service = read("production")["ServiceMonitor"], read("production")["Service"]
    labels = service["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert labels[monitor["spec"]["jobLabel"]] == "atalaya"
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert (
        read("production")["Service"]["spec"]["selector"].items()
        <= {**read("production")["Deployment"]["spec"]["template"]["metadata"]["labels"]}.items()
    )


@pytest.mark.parametrize(("overlay", "host"), [("production", "atalaya.example"), ("trial", "localhost")])
def test_gateway_starts_as_the_page_says(tmp_path: Path, postgres_url: str, overlay: str, host: str) -> None:
    """A gateway predicts with the files of the Secret that the page's commands create, and with each ConfigMap."""
    prepare = next(text for _, text in read_blocks(PAGE) if "secret.env" in text and "kubectl" not in text)
    create = next(line for _, text in read_blocks(PAGE) for line in text.splitlines() if "create secret" in line)
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "ATALAYA_HOME": str(tmp_path)}
    script = f"{prepare}\n{create} --dry-run=client --output json"
    run = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    assert (tmp_path / "secret.env").stat().st_mode & 0o077 == 0
    secret = json.loads(run.stdout[run.stdout.index("{") :])
    secrets = {name: b64decode(value).decode() for name, value in secret["data"].items()}
    (volume,) = [volume for volume in next(pods(overlay))["volumes"] if "secret" in volume]
    assert secret["metadata"]["name"] == volume["secret"]["secretName"]
    assert set(secrets) == {"AUTH__SIGNING_KEY", "AUTH__DATA_KEY", "LEDGER__SIGNING_KEY", "DATABASE_URL", "REDIS_URL"}
    (tmp_path / ".env").unlink()  # a pod has none
    del secrets["REDIS_URL"]
    secrets["DATABASE_URL"] = postgres_url
    mounted = mount_like_kubernetes(tmp_path / "secrets", secrets)
    settings = {**read(overlay)["ConfigMap"]["data"], "SECRETS__URL": f"file://{mounted}"}
    serve_and_predict(tmp_path, fill_in(settings, tmp_path), host, postgres_url)


def mount_like_kubernetes(folder: Path, values: dict[str, str]) -> Path:
    """Write the files of a Secret as kubelet does: links through `..data` to a folder that it replaces as a whole."""
    version = folder / "..2026_11_28"
    version.mkdir(parents=True)
    for name, value in values.items():
        (version / name).write_text(value)
        (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data").symlink_to(version.name)
    return folder
