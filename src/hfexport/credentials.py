"""Which token is used for what. Whoever asks for one hides it at once; none goes into a file or to a child process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hfexport.errors import CheckpointError

__all__ = ["TOKEN_VARIABLES", "reading_token"]

TOKEN_VARIABLES = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_ID_TOKEN"),
    *("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_RUNTIME_TOKEN", "GITHUB_TOKEN"),
)
"""Environment variables that may hold a secret, whether hfexport uses it or not."""


def reading_token(given: str | None, env: Mapping[str, str], mask: Callable[[str], None]) -> str | None:
    """The token to read from the Hub with: the one given, else the client's own, from `HF_TOKEN` or a stored login.

    Args:
        given: the input `hub-token`.
        env: the environment.
        mask: hides a text from now on.

    Returns:
        The token, or `None`: public models can be read without.

    Raises:
        CheckpointError: `HF_OIDC_RESOURCE` asks for a token that cannot be had.
    """
    if given:
        return given
    import httpx2
    from huggingface_hub import get_token
    from huggingface_hub.errors import OIDCError

    try:
        token = get_token()
    except (OIDCError, httpx2.HTTPError) as error:
        raise CheckpointError(
            f"HF_OIDC_RESOURCE is {env.get('HF_OIDC_RESOURCE')!r}, but no token came of it: {str(error).splitlines()[0]}",
            remedy="Unset it, or set up a trusted publisher for this workflow (docs/publishing.md).",
        ) from error
    if token:
        mask(token)
    return token
