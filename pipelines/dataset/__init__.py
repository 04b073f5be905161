"""A prepared dataset: its plan of shards, what is counted while they are written, and what lies beside them."""
