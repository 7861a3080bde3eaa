"""Resume downloads that an earlier run left incomplete.

The client writes a download to `{blob}.{random}.incomplete` in its cache. It resumes that file while the process
lives, but never looks for files that another process left. Remove this module once it does:
https://github.com/huggingface/huggingface_hub/pull/4228
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from hfexport._internal.sizes import size_text
from hfexport.hub.client import Hub, HubFile

__all__ = ["finish_downloads"]


def finish_downloads(
    hub: Hub, repository: str, commit: str, files: Iterable[HubFile], note: Callable[[str], None]
) -> None:
    """Complete partial downloads in the client's cache; callers verify the hash of each file afterwards.

    Args:
        hub: client to read with.
        repository: `owner/name`.
        commit: commit of the files.
        files: files that are needed. Only large files are resumed.
        note: called with a message about each resumed file.

    Raises:
        HfexportError: the Hub does not send the rest. A later run can resume again.
    """
    from huggingface_hub import constants, hf_hub_url

    from hfexport._internal.upstream.hub_client import WeakFileLock, repo_folder_name

    cache, folder = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=repository, repo_type="model")
    for file in files:
        if file.sha256 is None:
            continue
        blob = cache / folder / "blobs" / file.sha256
        if blob.exists() or _longest_part(blob, file.size_bytes) is None:
            continue
        url = hf_hub_url(repository, file.path, revision=commit, endpoint=hub.endpoint)
        # The client's own lock: wait for a process that is downloading the file now.
        with WeakFileLock(cache / ".locks" / folder / f"{blob.name}.lock"):
            part = None if blob.exists() else _longest_part(blob, file.size_bytes)
            if part is None:
                continue
            note(f"{file.path}: resumes at {size_text(part.stat().st_size)} of {size_text(file.size_bytes)}")
            with hub.explained(repository, commit):
                hub.retried(partial(_fetch_rest, hub, url, part, file.size_bytes))
            os.replace(part, blob)


def _fetch_rest(hub: Hub, url: str, part: Path, size_bytes: int) -> None:
    """Download the missing end of a file of `size_bytes` and append it to `part`."""
    from hfexport._internal.upstream.hub_client import build_hf_headers, http_get

    headers = build_hf_headers(token=hub.token, library_name="hfexport")
    with part.open("ab") as content:
        http_get(url, content, resume_size=content.tell(), headers=headers, expected_size=size_bytes)


def _longest_part(blob: Path, size_bytes: int) -> Path | None:
    """Return the longest partial download. Sparse files are skipped: they were not written from the first byte on."""
    parts = [(path.stat(), path) for path in blob.parent.glob(f"{blob.name}.*incomplete")]
    whole = [(stat.st_size, path) for stat, path in parts if 0 < stat.st_size <= min(size_bytes, stat.st_blocks * 512)]
    return max(whole)[1] if whole else None
