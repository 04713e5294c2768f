"""docker-compose.yml: what it promises, and that `docker compose` accepts it where there is one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams.broker import KAFKA_VERSION
from streams.config import from_environment
from streams.topics import ALL

FOLDER = Path(__file__).parents[2]
FILE = FOLDER / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
WORKERS = {name: service for name, service in SERVICES.items() if name.startswith("worker-")}


def test_kafka_is_one_node_that_keeps_its_data() -> None:
    kafka = SERVICES["kafka"]
    assert kafka["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert kafka["environment"]["KAFKA_PROCESS_ROLES"] == "broker,controller"
    volume, _, folder = kafka["volumes"][0].partition(":")
    assert volume in COMPOSE["volumes"]
    assert folder == kafka["environment"]["KAFKA_LOG_DIRS"]
    assert kafka["healthcheck"]["test"]


def test_the_topics_are_there_before_any_worker() -> None:
    assert SERVICES["topics"]["command"] == ["topics", "create"]
    assert SERVICES["topics"]["depends_on"]["kafka"]["condition"] == "service_healthy"
    for worker in WORKERS.values():
        assert worker["depends_on"]["topics"]["condition"] == "service_completed_successfully"
        assert worker["environment"]["CONSENT_PARTITIONS"] == SERVICES["topics"]["environment"]["CONSENT_PARTITIONS"]


def test_two_workers_differ_where_they_must() -> None:
    assert len(WORKERS) == 2
    for what in ("CONSENT_INSTANCE_ID", "CONSENT_HTTP_ADVERTISED_URL"):
        assert len({worker["environment"][what] for worker in WORKERS.values()}) == 2
    assert len({worker["volumes"][0] for worker in WORKERS.values()}) == 2
    assert len({worker["ports"][0] for worker in WORKERS.values()}) == 2


#: What compose puts where `${NAME:-default}` stands.
DEFAULTS = {"CONSENT_HTTP_TOKEN": "a token", "CONSENT_LINK_SECRET": "", "CONSENT_PUBLIC_URL": "",
            "CONSENT_LOG_FORMAT": "text"}  # fmt: skip


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_s_options_are_options(name: str) -> None:
    given = WORKERS[name]["environment"]
    config = from_environment(given | DEFAULTS)
    known = {f"CONSENT_{field.upper()}" for field in config.__slots__}
    assert given.keys() <= known
    assert not config.listens_on_loopback
    assert config.http_advertised_url == f"http://{name}:{config.http_port}"
    assert WORKERS[name]["ports"][0].endswith(f":{config.http_port}")
    assert f":{config.http_port}/readyz" in WORKERS[name]["healthcheck"]["test"][-1]
    assert WORKERS[name]["volumes"][0].endswith(":/var/lib/consent-streams")
    assert WORKERS[name]["stop_grace_period"] == "15s"


def test_the_image_is_built_from_files_that_are_there_and_runs_as_a_plain_user() -> None:
    recipe: str = SERVICES["worker-1"]["build"]["dockerfile_inline"]
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", recipe, re.MULTILINE):
        for source in line.split():
            assert (FOLDER / source).exists(), source
    user = re.findall(r"^USER (\S+)$", recipe, re.MULTILINE)
    assert user == ["consent"]
    assert re.findall(r"[^$]\$[^$]", recipe) == []  # compose would put its own variable there
    assert f"uv=={_uv_version()}" in recipe


def _uv_version() -> str:
    found = re.search(r"^UV_VERSION := (\S+)$", (FOLDER / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert found
    return found[1]


def test_prometheus_asks_both_workers_with_the_token() -> None:
    scrape = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])["scrape_configs"][0]
    assert scrape["static_configs"][0]["targets"] == [f"{name}:6066" for name in WORKERS]
    assert scrape.get("metrics_path", "/metrics") == "/metrics"
    secret = Path(scrape["authorization"]["credentials_file"])
    assert secret.parent == Path("/run/secrets")
    assert SERVICES["prometheus"]["secrets"] == [secret.name]
    assert COMPOSE["secrets"][secret.name] == {"environment": "CONSENT_HTTP_TOKEN"}


def test_prometheus_has_the_alerts_and_grafana_the_board() -> None:
    rules = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])["rule_files"]
    assert {mounted("prometheus", "alerts"), *rules} == {"/etc/prometheus/alerts.yaml"}
    for name in ("alerts", "grafana-board"):
        assert (FOLDER / COMPOSE["configs"][name]["file"]).is_file()
    (source,) = yaml.safe_load(COMPOSE["configs"]["grafana-datasource"]["content"])["datasources"]
    assert source["url"] == f"http://prometheus:{SERVICES['prometheus']['ports'][0].rpartition(':')[2]}"
    (provider,) = yaml.safe_load(COMPOSE["configs"]["grafana-dashboards"]["content"])["providers"]
    assert Path(mounted("grafana", "grafana-board")).parent == Path(provider["options"]["path"])
    assert mounted("grafana", "grafana-datasource").startswith("/etc/grafana/provisioning/datasources/")
    assert mounted("grafana", "grafana-dashboards").startswith("/etc/grafana/provisioning/dashboards/")
    assert SERVICES["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def mounted(service: str, config: str) -> str:
    """Where a service finds a config."""
    (target,) = [one["target"] for one in SERVICES[service]["configs"] if one["source"] == config]
    return str(target)


def test_every_config_is_somebody_s() -> None:
    used = [one["source"] for service in SERVICES.values() for one in service.get("configs", [])]
    assert sorted(used) == sorted(COMPOSE["configs"])


def test_every_variable_of_the_caller_s_is_a_secret_an_address_or_how_to_log() -> None:
    wanted = set(re.findall(r"\$\{(\w+)", FILE.read_text("utf-8")))
    assert wanted == {"CONSENT_HTTP_TOKEN", "CONSENT_LINK_SECRET", "CONSENT_PUBLIC_URL", "CONSENT_LOG_FORMAT"}
    options = [set(worker["environment"]) & wanted for worker in WORKERS.values()]
    assert options == [wanted, wanted]


def test_nothing_is_published_beyond_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_topic_fits_the_broker_s_limits() -> None:
    assert "KAFKA_MESSAGE_MAX_BYTES" not in SERVICES["kafka"]["environment"]
    assert all("max.message.bytes" in spec.config for spec in ALL)


def _has_compose() -> bool:
    docker = shutil.which("docker")
    asked = docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    return bool(asked and asked.returncode == 0)


@pytest.mark.skipif(not _has_compose(), reason="docker compose is not installed")
def test_docker_compose_accepts_it() -> None:
    env = {name: value for name, value in os.environ.items() if name != "CONSENT_HTTP_TOKEN"}
    told = subprocess.run(
        ["docker", "compose", "--file", str(FILE), "config", "--quiet"],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
