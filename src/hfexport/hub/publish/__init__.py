"""Publish validated artifacts to a repository on the Hub, in one commit or as one pull request."""

from __future__ import annotations

from hfexport.hub.publish.destination import Destination
from hfexport.hub.publish.publisher import Publisher, open_publisher

__all__ = ["Destination", "Publisher", "open_publisher"]
