"""Choose the tokens for reading and publishing. They are masked at once and never reach files or child processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from hfexport.errors import CheckpointError, HfexportError, PublishError

__all__ = ["TOKEN_VARIABLES", "publishing_token", "reading_token"]

TOKEN_VARIABLES = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_ID_TOKEN"),
    *("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_RUNTIME_TOKEN", "GITHUB_TOKEN"),
)
"""Environment variables that may hold a secret, including those that hfexport does not read."""


def reading_token(given: str | None, env: Mapping[str, str], mask: Callable[[str], None]) -> str | None:
    """Return the token to read from the Hub with: the given one, else the client's own (`HF_TOKEN` or a stored login).

    Args:
        given: value of the input `hub-token`.
        env: environment variables.
        mask: hides a text in all later output.

    Returns:
        The token, or `None`: public models need no token.

    Raises:
        CheckpointError: `HF_OIDC_RESOURCE` requests a token and the exchange fails.
    """
    return given or _own_token(env.get("HF_OIDC_RESOURCE"), mask, CheckpointError)


def publishing_token(given: str | None, env: Mapping[str, str], repository: str, mask: Callable[[str], None]) -> str:
    """Return the token to publish with: as for reading, and on Actions also the token of a trusted publisher.

    A later call may return another token, since tokens of trusted publishers expire after an hour.

    Args:
        given: value of the input `hub-token`.
        env: environment variables.
        repository: repository to publish to.
        mask: hides a text in all later output.

    Raises:
        PublishError: no token is available.
    """
    if given:
        return given
    resource = env.get("HF_OIDC_RESOURCE")
    if not resource and not env.get("HF_TOKEN") and env.get("ACTIONS_ID_TOKEN_REQUEST_URL"):
        resource = repository
    token = _own_token(resource, mask, PublishError)
    if token is None:
        raise PublishError(
            f"push-to-hub is {repository!r}, but there is no token to publish with",
            remedy="Give hub-token or HF_TOKEN; or give the job `id-token: write` and make it a trusted publisher of "
            "the repository (docs/publishing.md).",
        )
    return token


def _own_token(resource: str | None, mask: Callable[[str], None], failure: type[HfexportError]) -> str | None:
    """Return the client's own token, masked: from a trusted publisher of `resource`, `HF_TOKEN` or a stored login."""
    import httpx2
    from huggingface_hub import get_token
    from huggingface_hub.errors import OIDCError

    try:
        with _oidc_resource(resource):
            token = get_token()
    except (OIDCError, httpx2.HTTPError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise failure(
            f"could not get a token as trusted publisher of {resource}: {lines[-1] if lines else type(error).__name__}",
            remedy="Make this workflow a trusted publisher in the repository's settings on the Hub, or give hub-token "
            "(docs/publishing.md).",
        ) from error
    if token:
        mask(token)
    return token


@contextmanager
def _oidc_resource(resource: str | None) -> Iterator[None]:
    """Set `HF_OIDC_RESOURCE` inside the block; the client reads the resource from this variable only."""
    before = os.environ.get("HF_OIDC_RESOURCE")
    if resource:
        os.environ["HF_OIDC_RESOURCE"] = resource
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("HF_OIDC_RESOURCE", None)
        else:
            os.environ["HF_OIDC_RESOURCE"] = before
