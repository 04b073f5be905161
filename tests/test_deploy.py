"""What lies in deploy/: held to the schemas of its tools, to the files it mounts and to what the server is told."""

import json
import os
import pathlib
import re
import subprocess
import sys

import kubernetes_validate
import promql_parser
import pytest
import yaml
from check_jsonschema.cli.main_command import main as check_jsonschema
from click.testing import CliRunner

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
KUBERNETES = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
PANELS = json.loads((DEPLOY / "grafana/serving.json").read_text())["panels"]
# What TF Serving's servables/tensorflow/util.cc and TensorFlow's cc/saved_model/loader.cc call their metrics, with the
# labels of each; Prometheus is given ":" for "/".
METRICS = {
    ":tensorflow:serving:request_count": {"model_name", "status"},
    ":tensorflow:serving:request_latency_bucket": {"model_name", "API", "entrypoint", "le"},
    ":tensorflow:serving:runtime_latency_bucket": {"model_name", "API", "runtime", "le"},
    ":tensorflow:cc:saved_model:load_attempt_count": {"model_path", "status"},
}


@pytest.mark.parametrize("manifest", KUBERNETES, ids=lambda manifest: manifest["kind"])
def test_kubernetes_knows_every_field(manifest):
    kubernetes_validate.validate(manifest, "1.34", strict=True)


def test_a_misspelt_field_would_be_found():
    misspelt = {**KUBERNETES[1], "spec": {**KUBERNETES[1]["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, "1.34", strict=True)


def test_compose_knows_every_field(tmp_path):
    arguments = ["--builtin-schema", "vendor.compose-spec"]
    assert CliRunner().invoke(check_jsonschema, [*arguments, str(DEPLOY / "compose.yaml")]).exit_code == 0
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump({"services": {"serving": {"imag": "x"}}}))
    assert CliRunner().invoke(check_jsonschema, [*arguments, str(tmp_path / "compose.yaml")]).exit_code == 1


def test_what_is_mounted_is_there_and_ports_are_of_this_machine_alone():
    for service in COMPOSE["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).exists(), volume
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_both_start_the_server_with_files_that_are_in_the_repository():
    deployment = KUBERNETES[1]["spec"]["template"]["spec"]["containers"][0]
    serving = COMPOSE["services"]["serving"]
    assert deployment["image"] == serving["image"]
    for flags, folder in ((deployment["args"], "/config/"), (serving["command"], "/models/")):
        files = [flag.split("=")[1] for flag in flags if flag.split("=")[0].endswith("_file")]
        assert len(files) == 3 and all(file.startswith(folder) for file in files)
        assert all((ROOT / "saved_models" / file.removeprefix(folder)).is_file() for file in files)


def test_metrics_are_asked_for_where_the_server_gives_them():
    path = re.search(r'path: "([^"]+)"', (ROOT / "saved_models/monitoring.config").read_text())[1]
    (scraped,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    annotations = KUBERNETES[1]["spec"]["template"]["metadata"]["annotations"]
    assert scraped["metrics_path"] == annotations["prometheus.io/path"] == path
    host, port = scraped["static_configs"][0]["targets"][0].split(":")
    assert host in COMPOSE["services"] and port == annotations["prometheus.io/port"] == "8501"


@pytest.mark.parametrize("recipe", sorted(DEPLOY.rglob("Dockerfile")), ids=lambda recipe: recipe.parent.name)
def test_an_image_is_made_as_hadolint_knows_it(recipe, tmp_path):
    linter = pathlib.Path(sys.executable).with_name("hadolint")
    assert subprocess.run([linter, recipe]).returncode == 0
    misspelt = tmp_path / "Dockerfile"
    misspelt.write_text(recipe.read_text().replace("ENTRYPOINT [", "ENTRYPONT ["))
    assert subprocess.run([linter, misspelt], capture_output=True).returncode == 1


@pytest.mark.parametrize(("pipeline", "option"), [("embed", "--model"), ("prepare", "--source")])
def test_the_launcher_of_a_template_is_the_command(pipeline, option):
    line = [sys.executable, str(DEPLOY / "dataflow/launch.py"), "--help"]
    run = subprocess.run(line, env=os.environ | {"TFVAE_PIPELINE": pipeline}, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and f" {option} " in run.stdout


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_for_metrics_and_labels_that_the_server_has(panel):
    for target in panel["targets"]:
        promql_parser.parse(target["expr"].replace("$__rate_interval", "1m"))
        asked = re.findall(r":tensorflow:[\w:]+", target["expr"])
        assert asked and set(asked) <= set(METRICS)
        grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
        labels = {name.strip() for group in grouped for name in group.split(",")}
        labels |= set(re.findall(r"{(\w+)!?=", target["expr"]))
        assert labels <= set.intersection(*(METRICS[name] for name in asked))
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels


def test_grafana_finds_its_source_and_its_dashboard():
    (source,) = yaml.safe_load((DEPLOY / "grafana/datasources.yml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in PANELS} == {source["uid"]}
    assert source["url"].split("//")[1].split(":")[0] in COMPOSE["services"]
    (provider,) = yaml.safe_load((DEPLOY / "grafana/dashboards.yml").read_text())["providers"]
    mounted = [volume.split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]]
    assert any(place.startswith(provider["options"]["path"]) for place in mounted)
