"""Embeddings: a SavedModel run over blocks of rows, and the Parquet parts that it makes."""
