"""Exports in processes of their own, to be killed, raced or starved of disk; run as a program by test_versions.py.

    python export_worker.py kill BASE POINTS     one export, then POINTS that are killed on the way; prints JSON
    python export_worker.py race BASE EXPORTS    so many at once
    python export_worker.py disk BASE SHARE...   on a tmpfs at BASE with that share of the room a version needs

TensorFlow is imported once and every export runs in a fork that has not used it yet: an import costs more than an
export.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import tfvae
from tfvae import likelihoods, networks, posteriors


def export(base: pathlib.Path, ready: int | None = None, go: int | None = None) -> str:
    vae = tfvae.VAE(networks.mlp([400]), networks.mlp([400]), posteriors.diagonal_normal(2), likelihoods.normal([64]))
    if ready is not None:
        os.write(ready, b"r")
    if go is not None:
        os.read(go, 1)
    return tfvae.export(vae, base, warmup_batch_sizes=[1, 2])


def fork(base: pathlib.Path, go: int | None = None) -> tuple[int, int]:
    """The process and a pipe that gives a byte when its export begins."""
    ready, say = os.pipe()
    process = os.fork()
    if not process:
        try:
            export(base, say, go)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    os.close(say)
    return process, ready


def kill(base: pathlib.Path, points: int) -> list[list[str]]:
    process, ready = fork(base)
    os.read(ready, 1)
    started = time.perf_counter()
    assert os.waitpid(process, 0)[1] == 0
    whole = time.perf_counter() - started
    seen: list[list[str]] = []
    while len(seen) < points:
        process, ready = fork(base)
        os.read(ready, 1)
        time.sleep(whole * (len(seen) + 0.5) / points)
        os.kill(process, signal.SIGKILL)
        if os.WIFSIGNALED(os.waitpid(process, 0)[1]):
            seen.append(sorted(os.listdir(base)))
        else:
            whole *= 0.8  # it was quicker than the first and got its version: once more
    return seen


def race(base: pathlib.Path, exports: int) -> list[int]:
    wait, go = os.pipe()
    forked = [fork(base, wait) for _ in range(exports)]
    for _, ready in forked:
        os.read(ready, 1)
    os.write(go, b"g" * exports)
    return [os.waitpid(process, 0)[1] for process, _ in forked]


def disk(base: pathlib.Path, shares: list[float]) -> list[dict[str, object]]:
    """In a mount namespace of its own, which takes the file systems with it when it ends."""

    def mount(size: int) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(base)], check=True)

    mount(1 << 28)
    whole = pathlib.Path(export(base / "m"))
    pages = sum(-(-path.stat().st_size // 4096) for path in whole.rglob("*") if path.is_file())
    results = []
    for share in shares:
        subprocess.run(["umount", str(base)], check=True)
        mount(int(pages * share) * 4096)
        try:
            export(base / "m")
            error, kind = "", ""
        except Exception as caught:
            error, kind = str(caught), "OSError" if isinstance(caught, OSError) else type(caught).__name__
        left = {
            str(path.relative_to(base / "m")): path.stat().st_size for path in base.glob("m/**/*") if path.is_file()
        }
        results.append({"share": share, "error": error, "kind": kind, "left": left})
    return results


if __name__ == "__main__":
    mode, where, *rest = sys.argv[1:]
    folder = pathlib.Path(where)
    if mode == "disk":
        print(json.dumps(disk(folder, [float(value) for value in rest])))
    else:
        print(json.dumps({"kill": kill, "race": race}[mode](folder, int(rest[0]))))
