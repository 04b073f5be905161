"""A C++ session that stays open in a process of its own, and the pipe to it.

The server's protos import TensorFlow and the session must not meet it: so the model lives in a child that runs this
file and answers one message after the other. A message is its length and the npz of ``tfvae.checks.process``.

    python -m tests.serving.cc_worker MODEL_DIR
"""

import contextlib
import io
import pathlib
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from tfvae.checks.cpp_session import CSession
from tfvae.checks.process import load_document, save_document
from tfvae.checks.wire import CSessionError, SignatureDef, TensorInfo, Tensors

ROOT = pathlib.Path(__file__).resolve().parents[2]
_LENGTH = struct.Struct("<Q")


def send(pipe: BinaryIO, document: Any) -> None:
    message = io.BytesIO()
    save_document(message, document)
    pipe.write(_LENGTH.pack(message.tell()) + message.getvalue())
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    header = pipe.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        raise EOFError("the other end of the pipe is closed")
    (length,) = _LENGTH.unpack(header)
    return load_document(io.BytesIO(pipe.read(length)))


class Session:
    """``CSession`` across the pipe; threads take turns."""

    def __init__(self, model_dir: str) -> None:
        command = [sys.executable, "-m", "tests.serving.cc_worker", model_dir]
        self._child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._turn = threading.Lock()
        loaded = receive(self._child.stdout)
        if "error" in loaded:
            raise CSessionError(*loaded["error"])
        self.signatures = {
            name: SignatureDef(*({k: TensorInfo(*info) for k, info in side.items()} for side in sides))
            for name, sides in loaded["signatures"].items()
        }

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> Tensors:
        """See ``CSession.run``."""
        with self._turn:
            send(self._child.stdin, [signature, dict(inputs)])
            answer = receive(self._child.stdout)
        if "error" in answer:
            raise CSessionError(*answer["error"])
        return answer["outputs"]

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()
        self._child.wait(timeout=30)
        self._child.stdout.close()


def main() -> None:
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        session = CSession(sys.argv[1])
    except CSessionError as error:
        send(answers, {"error": error.args})
        return
    with session, contextlib.suppress(EOFError):
        send(answers, {"signatures": session.signatures})
        while True:
            signature, inputs = receive(requests)
            try:
                send(answers, {"outputs": session.run(signature, inputs)})
            except CSessionError as error:
                send(answers, {"error": error.args})


if __name__ == "__main__":
    main()
