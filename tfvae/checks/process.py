"""The C++ session in a process of its own, for callers that import TensorFlow.

``run_in_subprocess`` sends the requests to this file run as a program

    python tfvae/checks/process.py MODEL_DIR REQUESTS.npz RESPONSES.npz [--library L] [--threads N] [--xla]

and reads back outputs or errors. Arrays travel as npz, everything else as JSON inside it; nothing is pickled. String
tensors are object arrays of bytes on either side: numpy's own bytes type drops trailing zeros.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import numpy as np

from tfvae.checks import litert_session
from tfvae.checks.cpp_session import CSession, find_library
from tfvae.checks.litert_session import LiteRTSession
from tfvae.checks.wire import CSessionError, Request, Tensors


def save_document(path: str | BinaryIO, document: Any) -> None:
    """JSON that may hold arrays: strings stay in it, any other array is left beside it in the npz file."""
    arrays: dict[str, Any] = {}

    def encode(value: Any) -> dict[str, Any]:
        value = np.asarray(value)
        if value.dtype.kind in "OS":
            texts = [base64.b64encode(item).decode() for item in value.flat]
            return {"strings": texts, "shape": value.shape}
        key = f"array{len(arrays)}"
        arrays[key] = value
        return {"array": key}

    text = json.dumps(document, default=encode).encode()
    np.savez(path, json=np.frombuffer(text, np.uint8), **arrays)


def load_document(path: str | BinaryIO) -> Any:
    """What ``save_document`` wrote."""
    with np.load(path, allow_pickle=False) as file:

        def decode(value: dict[str, Any]) -> Any:
            # Inner values come first: a tensor that happens to be named "array" is one by now, and no key.
            if isinstance(value.get("array"), str):
                return file[value["array"]]
            if isinstance(value.get("strings"), list):
                array = np.empty(value["shape"], object)
                array.reshape(-1)[:] = [base64.b64decode(text) for text in value["strings"]]
                return array
            return value

        return json.loads(file["json"].tobytes(), object_hook=decode)


def run_in_subprocess(
    model_dir: str | os.PathLike[str],
    requests: Iterable[Request],
    *,
    library: str | os.PathLike[str] | None = None,
    threads: int = 1,
    xla: bool = False,
    timeout: float = 300.0,
) -> list[Tensors | CSessionError]:
    """Outputs of the requests, or errors, in their order, from one fresh process without Python TensorFlow.

    A model that fails to load raises its CSessionError; a process that dies, a RuntimeError with its stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        sent, received = os.path.join(folder, "requests.npz"), os.path.join(folder, "responses.npz")
        save_document(sent, [[signature, dict(inputs)] for signature, inputs in requests])
        command = [sys.executable, "-P", __file__, os.fspath(model_dir), sent, received, "--threads", str(threads)]
        if not litert_session.holds(model_dir):
            command += ["--library", str(find_library(library))] + ["--xla"] * xla
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout)
        if done.returncode:
            raise RuntimeError(f"the session's process ended with {done.returncode}:\n{done.stderr[-4000:]}")
        answers = load_document(received)
    if "load_error" in answers:
        raise CSessionError(*answers["load_error"])
    return [CSessionError(*error) if error else outputs for outputs, error in answers["responses"]]


def _session(options: argparse.Namespace) -> CSession | LiteRTSession:
    if litert_session.holds(options.model_dir):
        return LiteRTSession(options.model_dir)
    return CSession(options.model_dir, options.library, options.xla)


def main() -> None:
    """The program that `run_in_subprocess` starts."""
    parser = argparse.ArgumentParser(
        description="Answer a file of requests with TensorFlow's C++ runtime, or LiteRT's."
    )
    parser.add_argument("model_dir")
    parser.add_argument("requests")
    parser.add_argument("responses")
    parser.add_argument("--library", help="libtensorflow_cc.so.2, or its folder (default: the installed wheel's)")
    parser.add_argument("--threads", type=int, default=1, help="requests answered at once")
    parser.add_argument("--xla", action="store_true", help="leave XLA on")
    options = parser.parse_args()
    try:
        session = _session(options)
    except CSessionError as error:
        save_document(options.responses, {"load_error": error.args})
        return

    def answer(request: Request) -> tuple[Tensors | None, tuple[str, str] | None]:
        try:
            return session.run(*request), None
        except CSessionError as error:
            return None, error.args

    with session, ThreadPoolExecutor(options.threads) as pool:
        responses = list(pool.map(answer, load_document(options.requests)))
    save_document(options.responses, {"responses": responses})


if __name__ == "__main__":
    main()
