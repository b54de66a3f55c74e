"""The web page of the demo: four chats side by side, one WebSocket."""

from adapters.playground.page.server import Page

__all__ = ["Page"]
