"""Dataflow without Google: jobs are described and staged in an emulated store, and what was staged is then run here.

What Dataflow itself does with them is not tested. Google's libraries are those that `make pages-test` installs.
"""

import json
import pathlib
import re
import socket
import sys

import numpy as np
import pytest

pytest.importorskip("apitools", reason="Google's libraries are not installed: `make pages-test` has them")

import apache_beam as beam
import google.auth
import google.cloud.dataflow as dataflow
import google.oauth2.credentials
from apache_beam.internal.gcp import auth
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from google.protobuf import json_format

from pipelines import command_line, embed, preprocess
from pipelines.errors import HandedOver
from tests.stores import SECRET

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "dataflow"
FREEZE = "submission_environment_dependencies.txt"  # what Beam notes for Dataflow's page, where there is a pip
IMAGE = "europe-docker.pkg.dev/nobody/tfvae/embed:1"


@pytest.fixture
def dataflow_args(google_bucket, monkeypatch) -> list[str]:
    """Beam's options for Dataflow, in a program with a secret among its globals; nothing beyond loopback answers."""
    resolve = socket.getaddrinfo

    def loopback(host, *arguments, **settings):
        assert host in ("127.0.0.1", "localhost"), host
        return resolve(host, *arguments, **settings)

    monkeypatch.setattr(socket, "getaddrinfo", loopback)
    token = google.oauth2.credentials.Credentials(SECRET)
    monkeypatch.setattr(google.auth, "default", lambda **settings: (token, "nobody"))
    monkeypatch.setattr(auth._Credentials, "_credentials_init", False)
    monkeypatch.setattr(sys.modules["__main__"], "TOKEN", SECRET, raising=False)
    return [
        *("--runner", "DataflowRunner", "--project", "nobody", "--region", "europe-west1", "--num_workers", "3"),
        *("--temp_location", f"{google_bucket.address}/tmp", "--sdk_container_image", IMAGE),
        *("--sdk_location", "container"),
    ]


def staged(bucket) -> tuple[dict, beam_runner_api_pb2.Pipeline]:
    """The job as it was translated, and the pipeline that it names; nothing else is there, and no secret in either."""
    job = json.loads(bucket.get("job.json"))
    (name,) = [key for key in bucket.keys("tmp/") if not key.endswith(FREEZE)]
    assert f"{bucket.address}/{name}" == job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
    assert all(SECRET.encode() not in bucket.get(key) for key in bucket.keys(""))
    return job, beam_runner_api_pb2.Pipeline.FromString(bucket.get(name))


def run_here(pipeline: beam_runner_api_pb2.Pipeline) -> None:
    """What Dataflow would do, in this process instead of the image."""
    (environment,) = pipeline.components.environments.values()
    environment.urn = "beam:env:embedded_python:v1"
    result = FnApiRunner().run_via_runner_api(pipeline, beam.options.pipeline_options.PipelineOptions([]))
    assert result.wait_until_finish() == "DONE"


def assert_described(job: dict, pipeline: beam_runner_api_pb2.Pipeline, last: str) -> None:
    """Three steps in the image, by as many machines as were asked for."""
    (pool,) = job["environment"]["workerPools"]
    assert job["type"] == "JOB_TYPE_BATCH" and pool["numWorkers"] == 3
    assert {package["name"] for package in pool.get("packages", [])} <= {FREEZE}
    assert [container["containerImage"] for container in pool["sdkHarnessContainerImages"]] == [IMAGE]
    (environment,) = pipeline.components.environments.values()
    payload = beam_runner_api_pb2.DockerPayload.FromString(environment.payload)
    assert environment.urn == common_urns.environments.DOCKER.urn and payload.container_image == IMAGE
    (root,) = pipeline.root_transform_ids
    steps = [pipeline.components.transforms[step] for step in pipeline.components.transforms[root].subtransforms]
    assert [step.unique_name for step in steps] == ["Plan", "Spread", last]


def test_a_prepared_dataset_is_described_done_and_completed(google_bucket, dataflow_args, tmp_path, capsys):
    output = f"{google_bucket.address}/prepared"
    command = ["--source", "digits", "--output", output, "--rows-per-shard", "300"]
    template = f"{google_bucket.address}/job.json"
    launcher = ["--template_location", template, "--job_name", "prepare-1", "--labels", "of=tests"]
    assert command_line.main("prepare", [*command, *dataflow_args, *launcher]) == 0
    assert f"the job lies in {template} and is not done yet" in capsys.readouterr().out
    job, pipeline = staged(google_bucket)
    assert_described(job, pipeline, "ParDo(WriteShard)")
    assert job["name"] == "prepare-1" and job["labels"] == {"of": "tests"}
    assert not google_bucket.keys("prepared/manifest.json")

    run_here(pipeline)
    summary = preprocess.run("digits", None, output, rows_per_shard=300, beam_args=dataflow_args)
    assert summary.units == 7 and not summary.units_done  # so Dataflow, which is not there, was not asked
    preprocess.run("digits", None, str(tmp_path), rows_per_shard=300)
    for path in [*tmp_path.glob("*.tfrecord*"), tmp_path / "statistics.json"]:
        assert google_bucket.get(f"prepared/{path.name}") == path.read_bytes()


def test_embeddings_are_described_done_and_completed(google_bucket, dataflow_args, linear_digits):
    model = google_bucket.upload(linear_digits.path, "models/digits/1")
    rows = f"{google_bucket.address}/rows"
    preprocess.run("digits", None, rows, rows_per_shard=300)
    arguments = (model, rows, f"{google_bucket.address}/embedded")
    where = ["--template_location", f"{google_bucket.address}/job.json"]
    with pytest.raises(HandedOver, match="without --template_location"):
        embed.run(*arguments, split="all", beam_args=[*dataflow_args, *where])
    job, pipeline = staged(google_bucket)
    assert_described(job, pipeline, "_Embed")

    run_here(pipeline)
    assert not embed.run(*arguments, split="all", beam_args=dataflow_args).units_done
    table = embed.read_embeddings(arguments[-1])
    assert len(set(table["key"].to_pylist())) == len(table) == 1797
    assert np.isfinite(np.stack(table["embedding"].to_numpy())).all()


@pytest.mark.parametrize("name", sorted(command_line.PIPELINES))
def test_a_templates_parameters_are_the_commands_options(name):
    text = (DEPLOY / f"{name}.json").read_text()
    metadata = dataflow.TemplateMetadata.from_json(text)  # which knows every field, and no other
    options = {option.opts[0].removeprefix("--"): option for option in command_line.pipeline(name).params}
    assert metadata.name and not metadata.streaming
    for parameter in metadata.parameters:
        option = options[parameter.name]
        assert parameter.is_optional != option.required and parameter.label
        assert not option.is_flag and not option.multiple  # a launcher writes --name=value
        assert parameter.help_text == option.help
    required = {name for name, option in options.items() if option.required}
    assert required <= {parameter.name for parameter in metadata.parameters}


def test_a_misspelt_field_of_a_template_would_be_found():
    with pytest.raises(json_format.ParseError, match="isOptionl"):
        dataflow.TemplateMetadata.from_json('{"name": "x", "parameters": [{"name": "y", "isOptionl": true}]}')


def test_the_image_holds_what_the_driver_needs_of_it():
    text = (DEPLOY / "Dockerfile").read_text()
    assert f"apache-beam=={re.search(r'beam_python3.11_sdk:([0-9.]+)', text)[1]}" in text
    copied = [path for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for path in line.split()]
    assert copied and all((DEPLOY.parents[1] / path).exists() for path in copied)
    assert (DEPLOY / re.search(r"FLEX_TEMPLATE_PYTHON_PY_FILE=/template/(\S+)", text)[1]).exists()
