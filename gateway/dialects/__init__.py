"""Wire dialects: how requests, replies, streams and errors look to clients and backends. Pure: no I/O."""
