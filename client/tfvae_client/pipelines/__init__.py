"""The names on the wire and in the SavedModel."""
