"""List the models of a collection, and those that a search finds."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

from hfexport.errors import CheckpointError
from hfexport.hub.client import Hub

__all__ = ["collection_models", "search_models"]


def collection_models(hub: Hub, slug: str) -> list[str]:
    """Return the models of a collection in its order.

    Args:
        hub: client to read with.
        slug: `owner/name-id` as in the collection's address, or `owner/name` if the owner has one of that name.

    Raises:
        CheckpointError: there is no such collection, or more than one.
    """
    from huggingface_hub.errors import HfHubHTTPError

    with hub.explained(slug):
        try:
            found: Any = hub.retried(lambda: hub.api.get_collection(slug))
        except HfHubHTTPError as error:
            if error.response.status_code not in (401, 404):
                raise
            found = hub.retried(lambda: hub.api.get_collection(_by_name(hub, slug)))
    return [str(item.item_id) for item in found.items if item.item_type == "model"]


def _by_name(hub: Hub, slug: str) -> str:
    """Return the full slug of the owner's only collection whose slug is `slug` and an id."""
    owner = slug.split("/", 1)[0]
    slugs = hub.retried(lambda: [str(one.slug) for one in hub.api.list_collections(owner=owner)])
    fitting = [one for one in slugs if re.fullmatch(re.escape(slug) + r"-[0-9a-f]{8,}", one, flags=re.IGNORECASE)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise CheckpointError(
            f"{slug}: is the name of {len(fitting)} collections", remedy=f"Give one of {', '.join(fitting)}."
        )
    listed = f"{owner} has {', '.join(slugs[:10])}." if slugs else f"{owner} has no collection that you may see."
    raise CheckpointError(f"{slug}: no such collection at {hub.endpoint}", remedy=listed)


def search_models(hub: Hub, author: str | None, tags: Sequence[str], text: str | None, limit: int) -> list[str]:
    """Return the names of the models that a search finds, sorted.

    Args:
        hub: client to read with.
        author: user or organisation.
        tags: tags that each model has.
        text: part of the model's name.
        limit: largest number of models.

    Raises:
        CheckpointError: more models are found.
    """
    what = ", ".join(filter(None, (author, *tags, text)))

    def found() -> list[str]:
        models = hub.api.list_models(author=author, filter=list(tags) or None, search=text, limit=limit + 1)
        return [str(one.id) for one in itertools.islice(models, limit + 1)]

    with hub.explained(what):
        names = hub.retried(found)
    if len(names) > limit:
        raise CheckpointError(
            f"the search for {what} finds more than {limit} models", remedy="Narrow it, or give a larger limit."
        )
    return sorted(names)
