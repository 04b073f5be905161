"""The boot program's contract: what a runner says of a job is what Beam's worker reads."""

import concurrent.futures
import json
import subprocess
import sys

import grpc
import pytest
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc, endpoints_pb2
from google.protobuf import struct_pb2, text_format

from pipelines.errors import PipelineError
from pipelines.jobs import worker

from ..conftest import ROOT


class Provision(beam_provision_api_pb2_grpc.ProvisionServiceServicer):
    """A runner's provision service, which remembers who asked."""

    def __init__(self, info: beam_provision_api_pb2.ProvisionInfo):
        self.info, self.asked = info, []

    def GetProvisionInfo(self, request, context):
        self.asked.append(dict(context.invocation_metadata())["worker_id"])
        return beam_provision_api_pb2.GetProvisionInfoResponse(info=self.info)


@pytest.fixture
def provision():
    """The service and its address."""
    options = struct_pb2.Struct()
    options.update({"beam:option:parallelism:v1": "2", "beam:option:job_name:v1": 'of "quotes"\n'})
    control = endpoints_pb2.ApiServiceDescriptor(url="localhost:1111")
    info = {"pipeline_options": options, "control_endpoint": control, "runner_capabilities": ["a:v1", "b:v1"]}
    service = Provision(beam_provision_api_pb2.ProvisionInfo(**info))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield service, f"127.0.0.1:{port}"
        server.stop(0).wait()


def test_a_runner_is_asked_for_the_job(provision):
    service, address = provision
    arguments = ["--id=7-1", f"--provision_endpoint={address}", "--logging_endpoint=localhost:2222", "--new=flag"]
    found = worker.environment(arguments)
    assert service.asked == ["7-1"] and found["WORKER_ID"] == "7-1"
    assert json.loads(found["PIPELINE_OPTIONS"])["beam:option:job_name:v1"] == 'of "quotes"\n'
    assert found["RUNNER_CAPABILITIES"].split() == ["a:v1", "b:v1"]
    for service_name, url in (("CONTROL", "localhost:1111"), ("LOGGING", "localhost:2222")):
        text = found[f"{service_name}_API_SERVICE_DESCRIPTOR"]
        assert text_format.Parse(text, endpoints_pb2.ApiServiceDescriptor()).url == url
    assert "STATUS_API_SERVICE_DESCRIPTOR" not in found


def test_prism_quotes_the_name(provision):
    service, address = provision
    assert worker.environment(["--id='job-001_go'", f"--provision_endpoint={address}"])["WORKER_ID"] == "job-001_go"
    assert service.asked == ["job-001_go"]


def test_no_runner(monkeypatch):
    monkeypatch.setattr(worker, "_PROVISION_SECONDS", 2)
    with pytest.raises(PipelineError, match=r"no runner answers at 127.0.0.1:1 .*a runner starts this command"):
        worker.environment(["--id", "1", "--provision_endpoint", "127.0.0.1:1"])


def test_a_person_is_told_in_one_line():
    done = subprocess.run([sys.executable, "-m", "pipelines.jobs.worker"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("error: the following arguments are required: --id") and "Traceback" not in done.stderr
