"""A source made with CloudQuery's Python SDK, for the tests: serves as the SDK does, on TCP or on a unix socket.

Its spec: rows (how many items), fail (a table whose resolver fails), log (a level to log a line at), state (whether to
continue from the state backend).
"""

import json
import os
import signal
import sys

import pyarrow as pa
from cloudquery.sdk import plugin, schema, serve
from cloudquery.sdk.scheduler import Scheduler, TableResolver
from cloudquery.sdk.stateclient.stateclient import StateClientBuilder
from cloudquery.sdk.types import JSONType


class Client:
    def id(self):
        return "test"


class Resolver(TableResolver):
    def __init__(self, table, spec, state=None, children=None):
        super().__init__(table=table, child_resolvers=children or [])
        self._spec = spec
        self._state = state

    def resolve(self, client, parent):
        if self._spec.get("fail") == self.table.name:
            raise RuntimeError("the shelf is empty")
        if self.table.name == "parts":
            item = parent.item["id"]
            return iter([{"item": item, "part": n} for n in range(2)])
        begin = int(self._state.get_key("items") or 0) if self._state else 0
        rows = self._spec.get("rows", 3)
        if self._state:
            self._state.set_key("items", str(begin + rows))
        items = range(begin + 1, begin + rows + 1)
        return iter([{"id": n, "name": "item %d" % n, "data": {"n": n, "secret": self._spec.get("secret")}} for n in items])


class Source(plugin.Plugin):
    def __init__(self):
        super().__init__("shelf", "v0.1.0", plugin.plugin.Options(team="twinlite", kind="source"))
        self._logger = None

    def set_logger(self, logger):
        self._logger = logger

    def init(self, spec, no_connection=False):
        self._spec = json.loads(spec)
        self._scheduler = Scheduler(concurrency=1, logger=self._logger)
        if self._spec.get("log"):
            getattr(self._logger, self._spec["log"])("as I was told")
        if self._spec.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)

    def get_tables(self, options):
        parts = schema.Table(
            "parts",
            [
                schema.Column("item", pa.int64(), primary_key=True, not_null=True),
                schema.Column("part", pa.int64(), primary_key=True, not_null=True),
            ],
        )
        items = schema.Table(
            "items",
            [
                schema.Column("id", pa.int64(), primary_key=True, not_null=True),
                schema.Column("name", pa.string()),
                schema.Column("data", JSONType()),
            ],
            relations=[parts],
            is_incremental=bool(self._spec.get("state")),
        )
        parts.parent = items
        return schema.filter_dfs([items], options.tables, options.skip_tables)

    def sync(self, options):
        state = None
        if self._spec.get("state"):
            state = StateClientBuilder.build(backend_options=options.backend_options)
            self._scheduler.set_post_sync_hook(state.flush)
        resolvers = []
        for table in self.get_tables(options):
            children = [Resolver(child, self._spec) for child in table.relations]
            resolvers.append(Resolver(table, self._spec, state, children))
        return self._scheduler.sync(Client(), resolvers, options.deterministic_cq_id)


if __name__ == "__main__":
    args = sys.argv[1:]
    if "unix" in args:
        # The SDK hands the address to gRPC as it is, which wants to be told that it is a file.
        at = args.index("--address") + 1
        args[at] = "unix:" + args[at]
    command = serve.PluginCommand(Source())
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    command.run(args)
