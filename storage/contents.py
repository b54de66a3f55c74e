"""Everything that is stored, as lines of text: the same for the same contents, whatever
file or database holds them."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
from sqlalchemy import Connection, select

from storage.schema import metadata


def contents(connection: Connection) -> Iterator[str]:
    """One JSON object for each row of each table, with sorted keys and the table's name
    in `table`; tables by name, rows by primary key."""
    for name in sorted(metadata.tables):
        table = metadata.tables[name]
        rows = connection.execute(select(table).order_by(*table.primary_key)).mappings()
        for row in rows:
            yield orjson.dumps({**row, "table": name}, option=orjson.OPT_SORT_KEYS).decode()
