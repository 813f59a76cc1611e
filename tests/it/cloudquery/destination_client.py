"""Drives a destination as CloudQuery's own Python SDK sees it: its stubs, its tables, pyarrow's records.

Usage: destination_client.py TARGET DATABASE, where TARGET is host:port or unix:PATH. A unix target is dialled without a
default authority, so that grpcio sends the percent-encoded path, as the CLI does. Prints a line a step, "done" last.
"""

import datetime
import json
import sys
import uuid

import grpc
import pyarrow as pa
from cloudquery.discovery_v1 import discovery_pb2, discovery_pb2_grpc
from cloudquery.plugin_v3 import plugin_pb2, plugin_pb2_grpc
from cloudquery.plugin_v3.arrow import new_record_from_bytes, record_to_bytes, schema_to_bytes
from cloudquery.sdk.schema import Column, Table
from cloudquery.sdk.types import JSONType, UUIDType
from google.protobuf.timestamp_pb2 import Timestamp

TARGET, DATABASE = sys.argv[1:]
LIMIT = 200 * 1024 * 1024
channel = grpc.insecure_channel(
    TARGET, options=[("grpc.max_receive_message_length", LIMIT), ("grpc.max_send_message_length", LIMIT)]
)
plugin = plugin_pb2_grpc.PluginStub(channel)
Write, Init = plugin_pb2.Write, plugin_pb2.Init

versions = discovery_pb2_grpc.DiscoveryStub(channel).GetVersions(discovery_pb2.GetVersions.Request(), timeout=60)
assert 3 in versions.versions, versions
assert plugin.GetName(plugin_pb2.GetName.Request()).name == "sqlite"
assert plugin.GetVersion(plugin_pb2.GetVersion.Request()).version
schema = plugin.GetSpecSchema(plugin_pb2.GetSpecSchema.Request())
assert schema.HasField("json_schema") and json.loads(schema.json_schema)["$schema"]
print("introduced", flush=True)

spec = json.dumps({"connection_string": DATABASE}).encode()
assert plugin.TestConnection(plugin_pb2.TestConnection.Request(spec=spec)).success
assert plugin.Init(Init.Request(spec=spec, invocation_id="python")).supports_flush
print("initialised", flush=True)

UTC = datetime.timezone.utc
SYNC_TIME = datetime.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
table = Table(
    "users",
    [
        Column("_cq_sync_time", pa.timestamp("us", tz="UTC")),
        Column("_cq_source_name", pa.string()),
        Column("_cq_id", UUIDType(), not_null=True, unique=True),
        Column("id", pa.int64(), primary_key=True),
        Column("data", JSONType()),
        Column("scores", pa.list_(pa.float64())),
        Column("avatar", pa.binary()),
    ],
)
arrow_schema = table.to_arrow_schema()


def record(ids, sync_time=SYNC_TIME):
    """Rows of the table; every third value is null."""
    storage = {
        "_cq_sync_time": [sync_time] * len(ids),
        "_cq_source_name": ["py"] * len(ids),
        "_cq_id": [uuid.UUID(int=i).bytes for i in ids],
        "id": ids,
        "data": [None if i % 3 == 0 else json.dumps({"i": i}).encode() for i in ids],
        "scores": [None if i % 3 == 0 else [i / 4, None, float("inf")] for i in ids],
        "avatar": [None if i % 3 == 0 else bytes([0, 255, i]) for i in ids],
    }
    arrays = []
    for field in arrow_schema:
        values = storage[field.name]
        if isinstance(field.type, pa.ExtensionType):
            arrays.append(pa.ExtensionArray.from_storage(field.type, pa.array(values, field.type.storage_type)))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema)


def migrate():
    return Write.Request(migrate_table=Write.MessageMigrateTable(table=schema_to_bytes(arrow_schema)))


def insert(batch):
    return Write.Request(insert=Write.MessageInsert(record=record_to_bytes(batch)))


def read():
    """All rows as Python has them, by id; their schema must be exactly the one that was asked for."""
    rows = {}
    for response in plugin.Read(plugin_pb2.Read.Request(table=schema_to_bytes(arrow_schema))):
        batch = new_record_from_bytes(response.record)
        assert batch.schema.equals(arrow_schema, check_metadata=True), (batch.schema, arrow_schema)
        for row in batch.to_pylist():
            rows[row["id"]] = row
    return rows


def expect(want):
    want = {row["id"]: row for batch in want for row in batch.to_pylist()}
    found = read()
    assert found == want, f"found {found}, want {want}"


def refused(code, call):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        return error.details()
    raise AssertionError(f"it was not refused with {code}")


first = record(list(range(1, 8)))
plugin.Write(iter([migrate(), insert(first)]))
expect([first])
print("written and read", flush=True)

later = SYNC_TIME + datetime.timedelta(microseconds=1)
second = record([2, 3], later)
stale = Write.MessageDeleteStale(table_name="users", source_name="py")
stale.sync_time.CopyFrom(Timestamp())
stale.sync_time.FromDatetime(later)
plugin.Write(iter([insert(second), Write.Request(delete=stale)]))
expect([second])
print("stale rows deleted", flush=True)

key = pa.RecordBatch.from_arrays([pa.array([2], pa.int64())], schema=pa.schema([pa.field("id", pa.int64())]))
predicate = plugin_pb2.Predicate(column="id", record=record_to_bytes(key))
group = plugin_pb2.PredicatesGroup(predicates=[predicate])
delete = Write.MessageDeleteRecord(table_name="users", where_clause=[group])
third = record([2], later)
plugin.Write(iter([insert(third), Write.Request(delete_record=delete)]))
expect([record([3], later)])
print("a row deleted by value", flush=True)

answers = list(
    plugin.WriteStream(
        iter([insert(record([4], later)), Write.Request(flush=Write.MessageFlush(id=41)), insert(record([5], later))])
    )
)
assert [(answer.flush_id, answer.flush_error) for answer in answers] == [(41, "")], answers
expect([record([3, 4, 5], later)])
print("flushed", flush=True)

junk = Write.Request(insert=Write.MessageInsert(record=b"junk"))
assert refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: plugin.Write(iter([junk]))).startswith("failed to create record")
unknown = record([1]).replace_schema_metadata({b"cq:table_name": b"unknown"})
assert "unknown" in refused(grpc.StatusCode.CANCELLED, lambda: plugin.Write(iter([insert(unknown), insert(first)])))
refused(grpc.StatusCode.INTERNAL, lambda: plugin.Init(Init.Request(spec=b'{"nonsense": 1}')))
plugin.Init(Init.Request(spec=spec))
expect([record([3, 4, 5], later)])
print("refusals", flush=True)

# More metadata than a header table holds: its entries must be evicted alike at both ends of the socket.
for i in range(200):
    plugin.GetName(plugin_pb2.GetName.Request(), metadata=[(f"x-name-{i}", "v" * 100), ("x-always", "same")])
print("two hundred calls", flush=True)

plugin.Close(plugin_pb2.Close.Request())
refused(grpc.StatusCode.FAILED_PRECONDITION, lambda: plugin.Write(iter([migrate()])))
print("done", flush=True)
