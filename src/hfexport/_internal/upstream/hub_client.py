"""Private parts of huggingface_hub that reading from the Hub uses."""

from __future__ import annotations

from typing import Final

from hfexport._internal.upstream.checked import Part, check

__all__ = ["PARTS", "WeakFileLock", "build_hf_headers", "default_client_factory", "http_get", "repo_folder_name"]

PARTS: Final = (
    Part(
        "huggingface_hub.utils._http", "default_client_factory", "the client's own session, to give it time limits", ()
    ),
    Part(
        "huggingface_hub.utils._fixes",
        "WeakFileLock",
        "the client's lock on a file of its cache, to go on with a download that was cut off",
        ("lock_file", "timeout"),
    ),
    Part("huggingface_hub.utils._headers", "build_hf_headers", "the client's headers, for the rest of such a download"),
    Part("huggingface_hub.file_download", "http_get", "reads the rest of such a download"),
    Part("huggingface_hub.file_download", "repo_folder_name", "folder of a repository in the cache"),
)

check("huggingface_hub", *PARTS)

from huggingface_hub.file_download import http_get, repo_folder_name  # noqa: E402
from huggingface_hub.utils._fixes import WeakFileLock  # noqa: E402
from huggingface_hub.utils._headers import build_hf_headers  # noqa: E402
from huggingface_hub.utils._http import default_client_factory  # noqa: E402
