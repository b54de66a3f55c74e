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
        columns = [str(column.name) for column in table.columns]
        for row in connection.execute(select(table).order_by(*table.primary_key)):
            line = dict(zip(columns, row, strict=True), table=name)
            yield orjson.dumps(line, option=orjson.OPT_SORT_KEYS).decode()
