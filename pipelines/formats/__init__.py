"""Bytes and arrays: the file formats that both pipelines read and write, none of which knows a job or a source."""
