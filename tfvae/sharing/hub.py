"""Hugging Face's hub, by its own client: a run or an export goes there in one commit, and comes from there whole."""

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from tfvae.arguments import check_path
from tfvae.pipelines import extras
from tfvae.sharing import files


class Pulled(NamedTuple):
    """What came from a repository.

    Attributes:
        folder: Where it lies.
        names: The files that were taken.
        left_out: Names of the repository that tfvae writes no file by.
    """

    folder: str
    names: list[str]
    left_out: list[str]


def push(
    source: str | os.PathLike[str],
    repo: str,
    public: bool = False,
    license: str | None = None,
    model: str | None = None,
) -> str:
    """Put a run, or an export's largest version, on the hub with its card and checksums; return its address.

    A repository that is there keeps its visibility. The token is the hub's client's: ``hf auth login`` or ``HF_TOKEN``.
    What a run's records say of this machine's folders stays here.

    Args:
        source: The run, the version or the model's folder.
        repo: ``OWNER/NAME``.
        public: Make a new repository one that everybody sees.
        license: The licence of a run's model, for its card, such as ``apache-2.0``.
        model: The Python file that defines classes of a run's own, which stays here: see ``runs.load``.

    Raises:
        ValueError: If the source is neither a run nor an export, or the repository's name is none.
        OSError: If the hub does not take it.
        ModuleNotFoundError: Without ``pip install 'tfvae[hub]'``.
    """
    with extras.needed("hub"):
        from huggingface_hub import CommitOperationAdd

    _check_name(repo)
    api = _api()
    found = files.of(source, _known(source, license), model)
    operations = [CommitOperationAdd(name, one if isinstance(one, bytes) else str(one)) for name, one in found.items()]
    with _told(repo):
        api.create_repo(repo, private=not public, exist_ok=True)
        api.create_commit(repo, operations, commit_message="A model of tfvae")
    return f"{api.endpoint}/{repo}"


def _known(source: str | os.PathLike[str], license: str | None) -> Any:
    if not (pathlib.Path(source) / files.MODEL).is_file():
        if license is not None:
            raise ValueError("an export's card has its licence: export again with --license, and push that.")
        return None
    from tfvae import runs

    return dataclasses.replace(runs.provenance(source), license=license)


def pull(repo: str, folder: str | os.PathLike[str], revision: str = "main") -> Pulled:
    """Bring a run or an export from the hub, whole or not at all.

    The folder appears once every file has come and has been read: see ``files.judge``. No file of another name than
    tfvae writes is asked for, and nothing that came is run.

    Args:
        repo: ``OWNER/NAME``.
        folder: Where it goes; it must not be there, or be empty.
        revision: A branch, a tag or a commit.

    Raises:
        ValueError: If the folder is in use, the repository's name is none, or it holds no model of tfvae's or one that
            is refused.
        OSError: If the hub does not give it.
        ModuleNotFoundError: Without ``pip install 'tfvae[hub]'``.
    """
    check_path(folder=folder)
    _check_name(repo)
    target, api = pathlib.Path(folder), _api()
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} is there already and is no empty folder: choose another.")
    with _told(repo):
        info = api.model_info(repo, revision=revision)
    names = [str(one.rfilename) for one in info.siblings or []]
    ours = sorted(set(filter(files.is_ours, names)))
    if not re.fullmatch("[0-9a-f]{40}", info.sha or "") or not any(_is_model(name) for name in ours):
        raise ValueError(
            f"{repo} holds no model of tfvae's: expected {files.MODEL} or a numbered version of an export."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with _told(repo):
            for name in ours:
                api.hf_hub_download(repo, name, revision=info.sha, local_dir=staging)
        shutil.rmtree(staging / ".cache", ignore_errors=True)  # the client's notes
        files.judge(staging)
        staging.chmod(0o755)
        os.rename(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return Pulled(str(target), ours, sorted(set(names) - {*ours, ".gitattributes"}))  # which the hub itself puts there


def _check_name(repo: str) -> None:
    """Raise ValueError unless it is a repository's name as the hub takes it, with its owner."""
    with extras.needed("hub"):
        from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
        is_whole = "/" in repo
    except (TypeError, ValueError):
        is_whole = False
    if not is_whole:
        raise ValueError(
            f"repo is {repo!a}, expected OWNER/NAME, such as me/mnist-vae, and no address: two names of at most 96 "
            "letters of ASCII, digits, '_', and '-' and '.' inside."
        )


def _is_model(name: str) -> bool:
    return name.rpartition("/")[2] in (files.MODEL, "saved_model.pb", "model.tflite")


def _api() -> Any:
    with extras.needed("hub"):
        from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="tfvae")


@contextlib.contextmanager
def _told(repo: str) -> Iterator[None]:
    """The client's many errors as one: of a connection and of a status, each with its own sentence."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:400]
        raise OSError(f"the hub does not serve {repo!a}: {type(error).__name__}: {said}") from error
