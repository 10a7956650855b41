"""The deployment files in config/ against the program: ports, paths, names and keys are those that there are."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes_validate
import pytest
import yaml

from proxy.admin.metrics import Metrics
from proxy.oauth.endpoint import REQUEST_TIMEOUT
from proxy.settings import LimitsSettings, Settings, load
from tests.admin.fakes import busy, report, tenant
from tests.project.quoted import README
from tests.project.test_image import ROOT, arguments, stages
from tests.support.proxies import run_proxy

CONFIG = ROOT / "config"
KUBERNETES = "1.31"
"""The API's version that the manifests are held against; native sidecars are on by default since 1.29."""

SECONDS = {"s": 1, "m": 60}

DRAINED = LimitsSettings().drain_timeout + REQUEST_TIMEOUT
"""Seconds after SIGTERM in which the program ends: what is in flight, and then a token request under way."""


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONFIG / "compose.yaml").read_text("utf-8"))
    return found


def manifests() -> dict[str, dict[str, Any]]:
    """Kubernetes' objects by kind."""
    return {made["kind"]: made for made in yaml.safe_load_all((CONFIG / "kubernetes.yaml").read_text("utf-8"))}


def sidecar() -> dict[str, Any]:
    [found] = manifests()["Deployment"]["spec"]["template"]["spec"]["initContainers"]
    assert isinstance(found, dict)
    return found


def in_a_container(text: str, secrets: Path) -> str:
    """A configuration as it is in its container, whose secret files are in this folder."""
    return re.sub(r'(?<=file = ")/run/secrets(?:/genesys)?(?=/)', str(secrets), text)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name in ("acme", "proxy_key"):
        (folder / name).write_text(f"{name}-made-up-for-tests\n")
    return folder


def loaded(text: str, secrets: Path) -> Settings:
    file = secrets.parent / "proxy.toml"
    file.write_text(in_a_container(text, secrets), "utf-8")
    return load(file)


# --- the image, as both use it ---


def image_paths() -> tuple[str, str]:
    """Where the image looks for its configuration, and where it may write."""
    [environment] = arguments(stages()[1], "ENV")
    found = re.search(r"GENESYS_AUTH_PROXY_CONFIG=(\S+)", environment)
    assert found
    return found[1], arguments(stages()[1], "WORKDIR")[0]


def test_the_image_has_a_volume_where_the_program_writes_and_exposes_its_ports() -> None:
    image = stages()[1]
    _, workdir = image_paths()
    assert arguments(image, "VOLUME") == [json.dumps([workdir])]
    assert f"STATE_DIRECTORY={workdir}" in arguments(image, "ENV")[0].split()
    assert arguments(image, "EXPOSE") == ["8080 8081"]


# --- compose ---


def test_compose_mounts_what_the_image_and_its_configuration_read(secrets: Path) -> None:
    service = compose()["services"]["proxy"]
    config, workdir = image_paths()
    assert [mounted["target"] for mounted in service["configs"]] == [config]
    assert (CONFIG / compose()["configs"]["proxy"]["file"]).exists()
    [volume] = service["volumes"]
    name, _, target = volume.partition(":")
    assert target == workdir
    assert name in compose()["volumes"]
    files = set(re.findall(r'file = "/run/secrets/(\w+)"', (CONFIG / "container.toml").read_text("utf-8")))
    assert files == set(service["secrets"]) == compose()["secrets"].keys()


def test_compose_publishes_the_configured_ports_on_loopback(secrets: Path) -> None:
    settings = loaded((CONFIG / "container.toml").read_text("utf-8"), secrets)
    ports = {settings.listen.port, settings.admin.port}
    assert set(compose()["services"]["proxy"]["ports"]) == {f"127.0.0.1:{port}:{port}" for port in ports}
    assert (settings.listen.host, settings.admin.host) == ("0.0.0.0", "0.0.0.0")
    assert settings.access.caller_keys
    assert settings.access.allowed_hosts == tuple(compose()["services"])


def test_compose_gives_it_time_to_drain_and_no_rights() -> None:
    service = compose()["services"]["proxy"]
    grace = re.fullmatch(r"(\d+)([sm])", service["stop_grace_period"])
    assert grace
    assert int(grace[1]) * SECONDS[grace[2]] > DRAINED
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert (ROOT / "config" / service["build"] / "Dockerfile").resolve() == ROOT / "Dockerfile"


# --- Kubernetes ---


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap", "Deployment", "NetworkPolicy"])
def test_kubernetes_knows_every_key(kind: str) -> None:
    kubernetes_validate.validate(manifests()[kind], KUBERNETES, strict=True)


def test_a_key_that_kubernetes_does_not_know_is_found() -> None:
    wrong = manifests()["Deployment"]
    wrong["spec"]["template"]["spec"]["initContainers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_it_is_a_native_sidecar_without_rights() -> None:
    container, pod = sidecar(), manifests()["Deployment"]["spec"]["template"]["spec"]
    assert container["restartPolicy"] == "Always"
    [user] = arguments(stages()[1], "USER")
    rights = container["securityContext"]
    assert f"{rights['runAsUser']}:{rights['runAsGroup']}" == user
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["fsGroup"] == rights["runAsGroup"], "so that it can read its secrets"
    assert pod["automountServiceAccountToken"] is False
    assert "memory" in container["resources"]["limits"]
    assert pod["terminationGracePeriodSeconds"] > DRAINED
    assert "lifecycle" not in container, "SIGTERM drains"


def test_its_mounts_are_what_the_image_and_its_configuration_read(secrets: Path) -> None:
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    config, workdir = image_paths()
    mounts = {mount["name"]: mount["mountPath"] for mount in sidecar()["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    folder, _, name = config.rpartition("/")
    assert mounts["configuration"] == folder
    assert volumes["configuration"]["configMap"]["name"] == manifests()["ConfigMap"]["metadata"]["name"]
    assert manifests()["ConfigMap"]["data"].keys() == {name}
    assert mounts["store"] == workdir
    assert volumes["secrets"]["secret"]["secretName"] == manifests()["Secret"]["metadata"]["name"]
    text = manifests()["ConfigMap"]["data"][name]
    files = set(re.findall(r'file = "([^"]+)"', text))
    assert files == {f"{mounts['secrets']}/{key}" for key in manifests()["Secret"]["stringData"]}
    settings = loaded(text, secrets)
    assert settings.listen.host == "127.0.0.1", "the pod's containers share it, and nobody else does"
    [port] = sidecar()["ports"]
    assert (port["name"], port["containerPort"]) == ("admin", settings.admin.port)
    annotations = manifests()["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(settings.admin.port)
    admitted = [rule for rule in manifests()["NetworkPolicy"]["spec"]["ingress"] if "from" in rule]
    assert [rule["ports"] for rule in admitted] == [[{"port": settings.admin.port}]]


async def test_each_probe_and_the_scraper_ask_what_the_program_answers(secrets: Path) -> None:
    [text] = manifests()["ConfigMap"]["data"].values()
    text = re.sub(r"port = \d+", "port = 0", in_a_container(text, secrets)).replace('"0.0.0.0"', '"127.0.0.1"')
    probes = {name: sidecar()[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {"admin"}
    annotations = manifests()["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    async with run_proxy(text + "keep_warm = false\n") as proxy, aiohttp.ClientSession(proxy.admin_url) as session:
        for path in (*(probe["path"] for probe in probes.values()), annotations["prometheus.io/path"]):
            async with session.get(path) as answer:
                assert answer.status == 200, path
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/startupz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }


# --- Prometheus and Grafana ---


def metrics() -> dict[str, set[str]]:
    """Every series name that the program exposes, with its labels."""
    text = b"".join(Metrics().text(report(tenant(tally=busy())), "")[1]).decode()
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^([a-z_]+)(?:\{(.*)\})? ", text, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
    return found


def alerts() -> list[dict[str, Any]]:
    [group] = yaml.safe_load((CONFIG / "prometheus-alerts.yaml").read_text("utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((CONFIG / "grafana-dashboard.json").read_text("utf-8"))["panels"]
    return found


def queries() -> Iterator[str]:
    """What is asked of Prometheus, with values in the place of Grafana's variables."""
    for panel in panels():
        for target in panel["targets"]:
            yield re.sub(r"\$__\w+", "5m", target["expr"]).replace("$instance", ".*").replace("$tenant", ".*")


def test_alerts_and_dashboard_ask_for_metrics_and_labels_that_there_are() -> None:
    known = metrics()
    ours = {"instance", "job"}  # Prometheus adds these
    for query in (*(rule["expr"] for rule in alerts()), *queries()):
        names = re.findall(r"\b((?:genesys_auth_proxy|process)_\w+)(?:\{([^}]*)\})?", query)
        assert names or query.startswith("up{"), query
        for name, labels in names:
            assert name in known, query
            assert set(re.findall(r"(\w+)[=!]~?\"", labels)) <= known[name] | ours, query


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    shown = " ".join(queries())
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in metrics() if name.startswith("genesys_")}
    assert {name for name in families if name not in shown} == set()


def test_no_panel_covers_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_readme_tells_what_to_do_about_each_alert() -> None:
    told = set(re.findall(r"^\| `(Genesys\w+)` \|", README.read_text("utf-8"), re.MULTILINE))
    assert told == {rule["alert"] for rule in alerts()}


def promtool(*arguments: str | Path) -> None:
    ran = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.needs("promtool")
def test_prometheus_reads_the_alerts_and_the_dashboards_queries(tmp_path: Path) -> None:
    promtool("check", "rules", CONFIG / "prometheus-alerts.yaml")
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries())]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


PROXY = 'instance="a",tenant="acme"'
TOKENS = f'genesys_auth_proxy_token_requests_total{{{PROXY},grant="client_credentials",outcome='
REQUESTS = f"genesys_auth_proxy_requests_total{{{PROXY},code="
REPLAYS = f"genesys_auth_proxy_replays_total{{{PROXY},outcome="
EXPIRY = f"genesys_auth_proxy_token_expiry_timestamp_seconds{{{PROXY}}}"
LIMIT = f"genesys_auth_proxy_upstream_rate_limit_remaining{{{PROXY}}}"

CASES: dict[str, tuple[dict[str, str], set[str]]] = {
    "all is well": (
        {
            f'{TOKENS}"ok"}}': "0+1x60",
            f'{REQUESTS}"200"}}': "0+600x60",
            f'{REPLAYS}"accepted"}}': "0 0 1 1 1 2 2 2 2x60",
            EXPIRY: "86400x60",
            LIMIT: "250x60",
            'up{job="genesys-auth-proxy",instance="a"}': "1x60",
        },
        set(),
    ),
    "a refresh fails now and then": ({f'{TOKENS}"unreachable"}}': "0+1x60", f'{TOKENS}"ok"}}': "0+1x60"}, set()),
    "no token can be had, the old one lives": (
        {f'{TOKENS}"invalid_client"}}': "0+1x60", f'{TOKENS}"ok"}}': "1x60", EXPIRY: "86400x60"},
        {"GenesysTokenRefreshFails"},
    ),
    "no token can be had, the old one ends": (
        {f'{TOKENS}"invalid_client"}}': "0+1x60", EXPIRY: "2400x60"},
        {"GenesysTokenRefreshFails", "GenesysTokenEndsSoon"},
    ),
    "a sixth of the requests fail": (
        {f'{REQUESTS}"200"}}': "0+50x60", f'{REQUESTS}"503"}}': "0+10x60"},
        {"GenesysRequestsFail"},
    ),
    "a hundredth of them does": ({f'{REQUESTS}"200"}}': "0+990x60", f'{REQUESTS}"503"}}': "0+10x60"}, set()),
    "a tenth is refused by the API, as is right": (
        {f'{REQUESTS}"200"}}': "0+90x60", f'{REQUESTS}"403"}}': "0+10x60"},
        set(),
    ),
    "new tokens are refused": ({f'{REPLAYS}"refused"}}': "0+1x60"}, {"GenesysTokensRefused"}),
    "tokens die early": ({f'{REPLAYS}"accepted"}}': "0+1x60"}, {"GenesysTokensDieEarly"}),
    "the rate limit is nearly used": ({LIMIT: "250x30 3x30"}, {"GenesysRateLimitNearlyUsed"}),
    "the proxy is gone": ({'up{job="genesys-auth-proxy",instance="a"}': "1x30 0x30"}, {"GenesysAuthProxyDown"}),
}
"""Samples a minute apart, and the alerts that fire at the end of the hour."""


@pytest.mark.needs("promtool")
def test_alerts_fire_when_they_should_and_not_otherwise(tmp_path: Path) -> None:
    rules = CONFIG / "prometheus-alerts.yaml"
    tests = []
    for name, (series, firing) in CASES.items():
        checks = []
        for rule in alerts():
            query = f'count(ALERTS{{alertname="{rule["alert"]}",alertstate="firing"}})'
            samples = [{"labels": "{}", "value": 1}] if rule["alert"] in firing else []
            checks.append({"expr": query, "eval_time": "60m", "exp_samples": samples})
        inputs = [{"series": key, "values": values} for key, values in series.items()]
        tests.append({"name": name, "interval": "1m", "input_series": inputs, "promql_expr_test": checks})
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", file)
    assert {name for _, firing in CASES.values() for name in firing} == {rule["alert"] for rule in alerts()}
