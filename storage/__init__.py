"""What is remembered, on SQLAlchemy."""

from storage.store import open_store

__all__ = ["open_store"]
