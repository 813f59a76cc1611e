"""A destination made with CloudQuery's Python SDK, for the tests: keeps rows in memory, replaces them by key, deletes stale
ones, and can be a state backend. After every Write it puts what it holds into the file that its spec names, as JSON."""

import json
import os
import signal
import sys

import pyarrow as pa
from cloudquery.sdk import message, plugin, serve
from cloudquery.sdk.schema import Table

NAME = b"cq:table_name"


class Destination(plugin.Plugin):
    def __init__(self):
        super().__init__("memory", "v0.1.0", plugin.plugin.Options(team="twinlite", kind="destination"))
        self._tables = {}
        self._spec = {}

    def init(self, spec, no_connection=False):
        self._spec = json.loads(spec)

    def write(self, writer):
        for msg in writer:
            if isinstance(msg, message.WriteMigrateTableMessage):
                self._tables.setdefault(msg.table.name, {})
            elif isinstance(msg, message.WriteInsertMessage):
                self._insert(msg.record)
            elif isinstance(msg, message.WriteDeleteStale):
                self._delete_stale(msg)
            else:
                raise NotImplementedError(type(msg))
        with open(self._spec["file"], "w") as out:
            tables = {name: [row for row, _ in rows.values()] for name, rows in self._tables.items()}
            json.dump(tables, out, default=lambda value: value.hex() if isinstance(value, bytes) else str(value))

    def _insert(self, record):
        rows = self._tables.setdefault(record.schema.metadata[NAME].decode(), {})
        keys = [f.name for f in record.schema if (f.metadata or {}).get(b"cq:extension:primary_key") == b"true"]
        for at, row in enumerate(record.to_pylist()):
            key = tuple(row[name] for name in keys) if keys else len(rows)
            rows[key] = (row, record.slice(at, 1))

    def _delete_stale(self, msg):
        rows = self._tables[msg.table_name]
        stale = [
            key
            for key, (row, _) in rows.items()
            if row["_cq_source_name"] == msg.source_name and row["_cq_sync_time"].replace(tzinfo=None) < msg.sync_time
        ]
        for key in stale:
            del rows[key]

    def read(self, table: Table):
        for _, record in self._tables.get(table.name, {}).values():
            yield message.ReadMessage(record)

    def close(self):
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    args = sys.argv[1:]
    if "unix" in args:
        # The SDK hands the address to gRPC as it is, which wants to be told that it is a file.
        at = args.index("--address") + 1
        args[at] = "unix:" + args[at]
    serve.PluginCommand(Destination()).run(args)
