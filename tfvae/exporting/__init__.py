"""A trained model becomes a SavedModel in its numbered folder, with its warm-up file and its card beside it.

``tfvae.export`` is the one function that a user needs; it stands in ``saved_model``. The room has a name of its own
because ``tfvae.export`` is that function: a room of the same name would take its place once it is imported.
"""
