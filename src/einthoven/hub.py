"""A model on the Hugging Face Hub: fetched into its cache, or pushed. Only the files of a model directory travel."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

from einthoven.errors import EinthovenError

FILES: Final = (
    "config.json",
    "model.safetensors",
    "probes.safetensors",
    "outliers.safetensors",
    "vocabulary.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer/added_tokens.json",
    "tokenizer/vocab.json",
    "tokenizer/vocab.txt",
    "tokenizer/merges.txt",
)
"""What a model directory may hold, none of which is run when it is read; nothing else is fetched or pushed."""

STAYING: Final = ("manifest.json", "calibration.json")
"""Of a model directory, but not pushed: they name the study and the paths of the machine that it was trained on."""

CARD: Final = "README.md"
"""Of a model directory too, pushed to a repository without one, since another may be somebody's own. Not fetched."""

OF_PATIENTS: Final = "outliers.safetensors"
"""Holds features of recordings trained on, one vector for each: it never becomes public."""

_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_ID = re.compile(rf"({_NAME.pattern})(?:@(\S+))?", re.ASCII)


def directory_of(place: Path | str, local_files_only: bool = False) -> Path:
    """A directory, or the one in the Hub's cache that "owner/name" or "owner/name@revision" was fetched into.

    A Path, a string that names something here and one that cannot be an id never reach the network.

    Args:
        place: a path or an id; a revision is a branch, a tag or a commit.
        local_files_only: only look into the cache.

    Raises:
        EinthovenError: an id that is not on the Hub, not allowed, or not in the cache while there is no network.
    """
    found = None if isinstance(place, Path) or Path(place).exists() else _ID.fullmatch(place)
    if found is None:
        return Path(place)
    from huggingface_hub import snapshot_download

    name, revision = found.groups()
    with _told(name, revision, local_files_only):
        there = snapshot_download(
            name, revision=revision, allow_patterns=list(FILES), local_files_only=local_files_only
        )
    return Path(there)


def push(directory: Path, name: str, private: bool = True) -> str:
    """Upload a model directory in one commit, replacing the model that is there; returns "owner/name@commit".

    Args:
        directory: of a model; anything in it but `FILES`, `STAYING` and `CARD` is refused, as it may be a patient's.
        name: "owner/name"; made if it is not there. The token is the one of `hf auth login`, or HF_TOKEN.
        private: of a new repository; one that is there must not be public. False: a model that anybody may fetch,
            without its outlier detectors, which hold features of single recordings.

    Raises:
        EinthovenError: another name, an unknown file, a public repository, no permission, no network.
    """
    if not _NAME.fullmatch(name):
        raise EinthovenError(f"push: {name!r}; expected owner/name.")
    files = [file for file in files_of(directory) if private or file != OF_PATIENTS]
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    with _told(name, None, False):
        api.create_repo(name, private=private, exist_ok=True)
        there = api.model_info(name)
        if private and not there.private:
            raise EinthovenError(f"push: {name} is there and public. Name another, or say private=False.")
        kept = {one.rfilename for one in there.siblings or ()}
        stale, files = kept & set(FILES) - set(files), [file for file in files if file != CARD or CARD not in kept]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(path_in_repo=file, path_or_fileobj=directory / file) for file in files),
            *(CommitOperationDelete(path_in_repo=file) for file in sorted(stale)),
        ]
        done = api.create_commit(name, operations, commit_message=f"Model of einthoven {version('einthoven')}")
    return f"{name}@{done.oid}"


def files_of(directory: Path) -> list[str]:
    """The files of a model directory that are pushed. EinthovenError where something else lies there."""
    there = sorted(file.relative_to(directory).as_posix() for file in directory.rglob("*") if not file.is_dir())
    foreign = [file for file in there if file not in (*FILES, *STAYING, CARD)]
    if foreign:
        raise EinthovenError(
            f"push: {directory} holds {foreign[0]}{' and more' if len(foreign) > 1 else ''}, which is not of a model; "
            "nothing was uploaded. Move it elsewhere."
        )
    return [file for file in there if file not in STAYING]


@contextmanager
def _told(name: str, revision: str | None, local_files_only: bool) -> Iterator[None]:
    """The Hub's errors in a sentence. Theirs are not repeated: they may hold addresses that are signed."""
    from huggingface_hub import errors
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of whatever client it uses

    try:
        yield
    except errors.GatedRepoError:
        problem = "asks for its conditions to be accepted, on its page on the Hub; then `hf auth login`."
    except errors.RepositoryNotFoundError:
        problem = (
            "is no directory here, and no model on the Hub that you may read. Check the name; a private one needs "
            "`hf auth login`."
        )
    except errors.RevisionNotFoundError:
        problem = f"has no revision {revision} on the Hub."
    except errors.LocalEntryNotFoundError:
        problem = "is no directory here, and not, or not whole, in the Hub's cache on this machine. " + (
            "Load it once without local_files_only."
            if local_files_only
            else "The Hub cannot be reached: check the network, or give the path of a copy."
        )
    except errors.HfHubHTTPError as error:
        problem = f"was refused by the Hub (status {error.response.status_code}). `hf auth whoami` says who you are."
    except (HTTPError, OSError, ValueError) as error:
        problem = f"could not be exchanged with the Hub ({type(error).__name__}); check the network."
    else:
        return
    raise EinthovenError(f"{name} {problem}")
