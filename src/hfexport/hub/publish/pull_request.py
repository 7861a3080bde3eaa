"""Pull requests: one for each source, with a description that shows the validation results and how to try them."""

from __future__ import annotations

from typing import Any

from hfexport.hub.client import Hub
from hfexport.hub.publish.card import CLAIMS, hub_snippet, table
from hfexport.manifest.entries import source_of
from hfexport.manifest.model import HubEntry, Manifest

__all__ = ["describe", "find_own", "marker_of", "update_texts"]


def marker_of(hub: HubEntry | None) -> str:
    """Return the hidden comment by which a later run finds the pull request for the same source.

    Args:
        hub: `source.hub` of the manifest. All commits of one model count as the same source.
    """
    name = "a folder" if hub is None else "/".join(filter(None, (hub["repository"], hub["subfolder"])))
    return f"<!-- hfexport: {name} -->"


def describe(manifest: Manifest, repository: str, prefix: str, number: int, marker: str) -> str:
    """Write the description: the table of validation results, and code that loads the artifacts from the pull request.

    Args:
        manifest: manifest of the export.
        repository: repository of the pull request.
        prefix: folder of the export, ending with a slash; empty for the root.
        number: number of the pull request; 0 while it is unknown.
        marker: see `marker_of`.
    """
    hub = source_of(manifest)["hub"]
    made_from = f"`{hub['repository']}` at `{hub['commit']}`" if hub else "a checkpoint folder"
    revision = f"refs/pr/{number}" if number else "refs/pr/N"
    lines = [
        f"Exports of {made_from}, task `{manifest['task']}`, {manifest['dtype']}. {CLAIMS[manifest['verdict']]}",
        "",
        *table(manifest),
        "",
        f"To try them before merging, load them from `{revision}`:",
        "",
    ]
    for artifact in manifest["artifacts"]:
        lines += ["```python", hub_snippet(artifact, manifest, repository, prefix, revision).rstrip(), "```", ""]
    return "\n".join([*lines, marker])


def find_own(hub: Hub, repository: str, branch: str, marker: str) -> int | None:
    """Find the open pull request against `branch` with this marker, opened by the token's user; return its number.

    Anyone can write a marker into a description, so the author is checked too. If the Hub does not say whose token it
    is, the result is `None`.
    """

    def found() -> int | None:
        user = _user(hub)
        if user is None:
            return None
        requests = hub.api.get_repo_discussions(repository, discussion_type="pull_request", discussion_status="open")
        for request in requests:
            if not request.is_pull_request or request.author != user:
                continue
            details = hub.api.get_discussion_details(repository, request.num)
            target = (details.target_branch or "").removeprefix("refs/heads/")
            if target == branch and marker in _description(details):
                return int(request.num)
        return None

    with hub.explained(repository):
        return hub.retried(found)


def update_texts(hub: Hub, repository: str, number: int, title: str, description: str) -> None:
    """Set the title and description of a pull request where they differ."""

    def write() -> None:
        details = hub.api.get_discussion_details(repository, number)
        if details.title != title:
            hub.api.rename_discussion(repository, number, new_title=title)
        first = next((event for event in details.events if event.type == "comment"), None)
        if first is not None and _description(details).strip() != description.strip():
            hub.api.edit_discussion_comment(repository, number, first.id, description)

    with hub.explained(repository):
        hub.retried(write)


def _user(hub: Hub) -> str | None:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return str(hub.api.whoami()["name"])
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            return None
        raise


def _description(details: Any) -> str:
    return next((str(event.content) for event in details.events if event.type == "comment"), "")
