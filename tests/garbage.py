"""How often Python looks for garbage: seldom, and not among the half a million objects that imports have made.

TensorFlow and its graphs make so many objects that the search took a sixth of the slow suite's time.
"""

import gc


def seldom() -> None:
    """Call it when all is imported; whoever makes many graphs calls ``gc.collect`` between them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
