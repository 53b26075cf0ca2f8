"""Files from the Hugging Face Hub, at one commit, with errors that name their cause.

Works with huggingface_hub 0.30, which the stock image has, and with the newest: nothing here names its HTTP client,
which was requests, then httpx, then httpx2.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

from inference.errors import InvalidRequest, StorageError, WeightsNotFound
from inference.weights.registry import HubSource
from inference.weights.sources import WeightSources

MAIN = "main"
METADATA_TIMEOUT_S = 10.0
MAX_TRANSFERS = 5  # of one file
# To connect to the Hub, or to a proxy. A Hub that connects but answers later is reachable, and is waited for.
# For all of it, name resolution included, which has no timeout of its own: a second name server is asked after 5 s.
REACH_TIMEOUT_S = 6.0
REPOSITORY_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # "name" or "owner/name"

COMMIT = re.compile(r"[0-9a-f]{40}")


def download(source: HubSource, file: str, folder: Path, sources: WeightSources) -> Path:
    """Download one file of a repository to a folder with the repository's layout.

    A broken transfer resumes where it stopped. The file appears complete or not at all; the caller checks its hash.
    Raises: WeightsNotFound, StorageError.
    """
    from huggingface_hub import hf_hub_download

    what = f"{file} of {source.repository} at {source.revision[:7]}"
    check_online(what, sources)
    check_reachable(what, f"{source.repository}/resolve/{source.revision}/{file}", sources)
    with translate_errors(what, source.repository, sources):
        fetch = partial(
            hf_hub_download,
            source.repository,
            file,
            revision=source.revision,
            local_dir=folder,
            endpoint=sources.hf_endpoint,
            token=sources.hf_token or False,  # False: ignore tokens stored on this machine
            etag_timeout=METADATA_TIMEOUT_S,
            library_name="viseme",
        )
        return Path(repeat_short_transfers(fetch))


def repeat_short_transfers(fetch: Callable[[], str]) -> str:
    """Call the Hub's client again if it found a file too short: it then continues where the transfer ended.

    The client of 0.30 does not notice a closed connection; it checks the size afterwards and raises a bare OSError.
    Source: huggingface_hub 0.30.0, file_download.py, http_get and _download_to_tmp_and_move.
    """
    for _ in range(MAX_TRANSFERS - 1):
        try:
            return fetch()
        except OSError as err:
            if type(err) is not OSError or err.errno is not None:
                raise
    return fetch()


def list_files(repository: str, sources: WeightSources) -> tuple[HubSource, list[str]]:
    """Return the repository at the current commit of its branch `main`, and the paths of its files.

    Raises: InvalidRequest if the name is invalid, WeightsNotFound, StorageError.
    """
    from huggingface_hub import HfApi

    check_name(repository)
    check_online(repository, sources)
    check_reachable(repository, f"api/models/{repository}/revision/{MAIN}", sources)
    api = HfApi(endpoint=sources.hf_endpoint, token=sources.hf_token or False, library_name="viseme")
    with translate_errors(repository, repository, sources):
        info = api.model_info(repository, revision=MAIN, timeout=METADATA_TIMEOUT_S)
    if not COMMIT.fullmatch(info.sha or ""):
        raise StorageError(f"{sources.hf_endpoint} returned no commit of {repository}, but {info.sha!r}")
    names = [file.rfilename for file in info.siblings or []]
    return HubSource(repository, str(info.sha)), [name for name in names if is_inside(name)]


def is_inside(name: str) -> bool:
    """Return whether a path from a server stays inside the folder it is joined to."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def check_name(repository: str) -> None:
    if not REPOSITORY_NAME.fullmatch(repository):
        raise InvalidRequest(f"Hub repository {repository!r}: expected 'owner/name'")


def check_online(what: str, sources: WeightSources) -> None:
    if sources.hf_offline:
        raise WeightsNotFound(
            f"{what}: not in {sources.cache}, and HF_HUB_OFFLINE forbids a download; fetch it once online "
            "('viseme weights fetch'), or put the file into the model directory"
        )


def check_reachable(what: str, path: str, sources: WeightSources) -> None:
    """Check within six seconds that something answers at the Hub's address, whatever it answers.

    The Hub's client retries for 25 s even if the name cannot be resolved or the connection is refused.
    Raises: StorageError.
    """
    from inference.weights.hub_connection import connect

    error: list[BaseException] = []
    url = f"{sources.hf_endpoint}/{path}"
    # In a thread, as nothing else bounds the resolution of a name.
    thread = threading.Thread(target=connect, args=(url, error), name="hub-reachable", daemon=True)
    thread.start()
    thread.join(REACH_TIMEOUT_S)
    if thread.is_alive():
        raise StorageError(f"{what}: {sources.hf_endpoint} did not answer within {REACH_TIMEOUT_S:g} s")
    if error:
        raise unreachable(what, sources.hf_endpoint, error[0]) from error[0]


@contextmanager
def translate_errors(what: str, repository: str, sources: WeightSources) -> Iterator[None]:
    """Raise huggingface_hub's errors as ours; network errors become StorageError.

    Only names that every version since 0.30, the stock image's, has. LocalEntryNotFoundError means that the network
    failed and that no cached copy exists; any other EntryNotFoundError is the Hub's answer.
    Source: huggingface_hub 0.30.0 and 2.4.0, errors.py.
    """
    from huggingface_hub import errors

    # The HTTP client's own errors: requests' before 1.0 (an OSError like its other ones), httpx's and httpx2's since.
    http_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    hub = sources.hf_endpoint
    try:
        yield
    except errors.GatedRepoError as err:
        raise WeightsNotFound(
            f"{what}: {repository} is gated; accept its terms at {hub}/{repository} and set HF_TOKEN"
        ) from err
    except errors.RepositoryNotFoundError as err:
        raise WeightsNotFound(
            f"{what}: {hub} has no repository {repository}, or it is private and HF_TOKEN gives no access to it"
        ) from err
    except errors.RevisionNotFoundError as err:
        raise WeightsNotFound(f"{what}: {repository} has no such revision") from err
    except errors.LocalEntryNotFoundError as err:
        raise unreachable(what, hub, err) from err
    except errors.EntryNotFoundError as err:
        raise WeightsNotFound(f"{what}: {repository} has no such file") from err
    except (http_error, OSError) as err:
        raise unreachable(what, hub, err) from err


def unreachable(what: str, hub: str, err: BaseException) -> StorageError:
    return StorageError(f"{what}: could not be fetched from {hub} ({root_cause(err)})")


def root_cause(err: BaseException) -> str:
    """Return the first cause in one line: the Hub's client wraps it in advice."""
    while err.__cause__ is not None:
        err = err.__cause__
    return (str(err) or type(err).__name__).splitlines()[0]
