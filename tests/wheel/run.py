"""The wheel, the sdist and the client where users have them: in environments of their own, away from the checkout.

``make wheel-test`` runs this. Each environment has a Python that is there, the highest or the lowest versions that
``pyproject.toml`` allows, and a folder whose name holds a space and letters beyond ASCII, with a folder ``pipelines``
of the user's in it. What is run there is ``smoke.py``, and in all but the base ``tfvae quickstart``.
"""

import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMOKE = pathlib.Path(__file__).with_name("smoke.py")
UV = [sys.executable, "-m", "uv"]
MOST_PACKAGES = 41  # of the base, and tfvae is one of them
ASCII = (("LC_ALL", "C"), ("PYTHONIOENCODING", "ascii"))


class Environment(NamedTuple):
    python: str
    extra: str
    built: str  # the end of the name of what is installed
    lowest: bool = False
    variables: tuple[tuple[str, str], ...] = ()


ENVIRONMENTS = [
    Environment("3.11", "", ".whl"),
    Environment("3.11", "quickstart", ".whl", lowest=True),
    Environment("3.12", "quickstart", ".tar.gz", variables=ASCII),  # what Beam's --setup_file gives to workers
    Environment("3.13", "quickstart", ".whl", variables=(("LC_ALL", "tr_TR.UTF-8"),)),  # where the machine has it
]


def interpreter(version: str) -> str | None:
    """A Python of that version: this one, one on the path, or one of pyenv's."""
    found = sorted(pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for candidate in [sys.executable, f"python{version}", *map(str, found)]:
        told = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        try:
            if subprocess.run(told, capture_output=True, text=True).stdout.strip() == version:
                return candidate
        except FileNotFoundError:
            continue
    return None


def run(log: pathlib.Path, *words: str | os.PathLike[str], **options) -> None:
    """Runs a command whose output goes to the log; where it fails, the log's end is the error."""
    with log.open("a", encoding="utf-8") as out:
        print("$", *words, file=out, flush=True)
        code = subprocess.run(words, stdout=out, stderr=subprocess.STDOUT, **options).returncode
    if code:
        end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:])
        raise RuntimeError(f"exit code {code}: {' '.join(map(str, words))}\n{end}")


def install(environment: Environment, python: str, built: pathlib.Path, folder: pathlib.Path, log: pathlib.Path) -> str:
    """Makes the environment; returns its Python."""
    own = folder / "venv" / "bin" / "python"
    run(log, *UV, "venv", "--python", python, folder / "venv")
    into = [*UV, "pip", "install", "--python", own]
    if environment.lowest:
        pins = folder / "lowest.txt"
        chosen = ["--extra", environment.extra, "--python", own, "--resolution", "lowest-direct"]
        run(log, *UV, "pip", "compile", "--quiet", ROOT / "pyproject.toml", *chosen, "--output-file", pins)
        run(log, *into, "--requirements", pins)
        run(log, *into, "--no-deps", built)
    else:
        run(log, *into, f"tfvae[{environment.extra}] @ {built.as_uri()}" if environment.extra else built)
    return str(own)


def check(environment: Environment, python: str, dist: pathlib.Path, folder: pathlib.Path) -> str:
    """Installs, and runs what a user would; returns a line that says how it went."""
    started, log = time.monotonic(), folder / "log.txt"
    (built,) = dist.glob(f"tfvae-*{environment.built}")
    own = install(environment, python, built, folder, log)
    work = folder / "ein Ordner für 日本"
    (work / "pipelines").mkdir(parents=True)
    (work / "pipelines" / "__init__.py").write_text("raise RuntimeError('the user has a folder of this name')\n")
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    variables |= {"TF_CPP_MIN_LOG_LEVEL": "2", **dict(environment.variables)}
    run(log, own, SMOKE, "whole" if environment.extra else "base", cwd=work, env=variables)
    listed = subprocess.run(
        [*UV, "pip", "list", "--python", own, "--format", "freeze"], capture_output=True, text=True
    ).stdout.splitlines()
    if not environment.extra and len(listed) > MOST_PACKAGES:
        raise RuntimeError(f"the base has {len(listed)} packages, at most {MOST_PACKAGES} are allowed: {listed}")
    said = ("tensorflow==", "keras==", "numpy==", "protobuf==", "apache-beam==", "pyarrow==")
    versions = [line for line in listed if line.startswith(said)]
    name = f"Python {environment.python}, tfvae[{environment.extra}]{environment.built}"
    return f"{name}: {len(listed)} packages, {time.monotonic() - started:.0f} s, {', '.join(versions)}"


def check_client(dist: pathlib.Path, folder: pathlib.Path) -> str:
    """The client in an environment that has neither TensorFlow nor Beam."""
    log, own = folder / "log.txt", folder / "venv" / "bin" / "python"
    (built,) = dist.glob("tfvae_client-*.whl")
    run(log, *UV, "venv", "--python", sys.executable, folder / "venv")
    run(log, *UV, "pip", "install", "--python", own, built)
    run(log, own, SMOKE, "client", cwd=folder)
    return "tfvae-client: imported without TensorFlow"


def main() -> int:
    """Runs every environment whose Python is there; the exit code is 1 where one fails."""
    base = pathlib.Path(tempfile.mkdtemp(prefix="tfvae wheel "))
    dist, failed = base / "dist", False
    for source in (ROOT, ROOT / "client"):
        run(base / "build.txt", *UV, "build", "--quiet", "--out-dir", dist, source)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = []
        for number, environment in enumerate(ENVIRONMENTS):
            python = interpreter(environment.python)
            if python is None:
                print(f"Python {environment.python} is not there: not run", flush=True)
                continue
            (folder := base / str(number)).mkdir()
            jobs.append(pool.submit(check, environment, python, dist, folder))
        (base / "client").mkdir()
        jobs.append(pool.submit(check_client, dist, base / "client"))
        for job in concurrent.futures.as_completed(jobs):
            failed |= job.exception() is not None
            print(f"FAILED {job.exception()}" if job.exception() else job.result(), flush=True)
    shutil.rmtree(base)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
