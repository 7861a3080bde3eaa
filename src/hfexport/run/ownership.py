"""Give the output folder to the owner of the workspace.

A container action runs as root, and later steps of the job run as the runner's user, who could not change or delete
root's files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

__all__ = ["give_to_owner"]


def give_to_owner(output: Path, env: Mapping[str, str]) -> None:
    """On Actions, give the output folder, its content and its new parent folders to the owner of the workspace.

    Nothing is changed outside of Actions, without root's rights, or for a folder outside of the workspace.

    Args:
        output: the output folder.
        env: variables of the runner: `GITHUB_ACTIONS` and `GITHUB_WORKSPACE`.
    """
    given = env.get("GITHUB_WORKSPACE", "")
    if env.get("GITHUB_ACTIONS") != "true" or not given or os.geteuid() != 0:
        return
    workspace, folder = Path(given).resolve(), output.resolve()
    if not workspace.is_dir() or not folder.is_dir() or not folder.is_relative_to(workspace):
        return
    owner = workspace.stat()
    if owner.st_uid == 0:
        return
    for path in _made_by_root(workspace, folder):
        with suppress(FileNotFoundError):  # removed by another process
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _made_by_root(workspace: Path, folder: Path) -> Iterator[Path]:
    """Yield root's folders from below `workspace` to `folder`, and root's content of `folder`; links are not followed."""
    parents = [parent for parent in folder.parents if parent != workspace and parent.is_relative_to(workspace)]
    below = [Path(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files)]
    for path in (*parents, folder, *below):
        with suppress(FileNotFoundError):
            if path.lstat().st_uid == 0:
                yield path
