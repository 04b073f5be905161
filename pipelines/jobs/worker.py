"""A Python worker as a process of its own, for a cluster that has neither Docker nor Beam's boot program.

Under ``--environment_type PROCESS`` a runner starts a command on the machine of each task manager and tells it
where the runner's services are. In Beam's containers that command is a Go program, which its wheel lacks. This
is the same contract in Python: ask the runner for the job's options and become Beam's own worker. Nothing is
installed on the way, so the environment that runs this holds the package already. As the command must be one
file, give the runner a script of two lines::

    #!/bin/sh
    exec /srv/tfvae/.venv/bin/python -m tfvae.pipelines.jobs.worker "$@"
"""

import os
import sys
from collections.abc import Sequence

import grpc
from apache_beam.portability.api import (
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    endpoints_pb2,
)
from google.protobuf import json_format, text_format

from ..errors import PipelineError
from .options import Parser

_PROVISION_SECONDS = 60
_MODULE = "apache_beam.runners.worker.sdk_worker_main"


def parser() -> Parser:
    """The arguments that every Beam runner gives such a command."""
    own = Parser(
        prog="python -m tfvae.pipelines.jobs.worker", description="Start one Beam worker; a runner calls this."
    )
    own.add_argument("--id", required=True, help="name of the worker, chosen by the runner")
    own.add_argument("--provision_endpoint", required=True, help="host:port that tells the rest")
    for service in ("control", "logging", "artifact", "status"):
        own.add_argument(f"--{service}_endpoint", help="host:port, where the provision service does not say")
    return own


def provisioned(endpoint: str, worker_id: str) -> beam_provision_api_pb2.ProvisionInfo:
    """What the runner says of the job that the worker is for.

    Raises:
        PipelineError: There is no runner at that address.
    """
    with grpc.insecure_channel(endpoint) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        metadata = [("worker_id", worker_id)]
        try:
            answer = stub.GetProvisionInfo(request, timeout=_PROVISION_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            raise PipelineError(
                f"no runner answers at {endpoint} ({error.code().name}): a runner starts this command, not a person"
            ) from error
    return answer.info


def environment(arguments: Sequence[str]) -> dict[str, str]:
    """The environment variables from which Beam's worker reads what it is to do.

    Raises:
        PipelineError: An argument is missing, or the runner does not answer.
    """
    own, _ = parser().parse_known_args(list(arguments))  # a later Beam may say more
    name = own.id.strip("'")  # Prism puts it in quotes
    info = provisioned(own.provision_endpoint, name)
    variables = {
        "WORKER_ID": name,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    for service in ("control", "logging", "status"):
        url = getattr(info, f"{service}_endpoint").url or getattr(own, f"{service}_endpoint")
        if url:
            descriptor = endpoints_pb2.ApiServiceDescriptor(url=url)
            variables[f"{service.upper()}_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(descriptor)
    return variables


def main(arguments: Sequence[str] | None = None) -> None:
    """Becomes the worker; where that cannot be, exits with code 1 and one line on standard error."""
    try:
        variables = environment(sys.argv[1:] if arguments is None else arguments)
    except PipelineError as error:
        sys.exit(f"error: {error}")
    os.execve(sys.executable, [sys.executable, "-m", _MODULE], {**os.environ, **variables})


if __name__ == "__main__":
    main()
