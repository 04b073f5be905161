"""Apache Beam pipelines: raw files to a prepared dataset, and rows to Parquet embeddings.

An installed package has them as ``tfvae.pipelines`` alone, so that no folder ``pipelines`` of the user's own is in the
way. In a checkout they lie beside ``tfvae``, which holds a link to them, and both names give the same modules.
"""

import logging
import sys

if __name__ == "pipelines":
    import tfvae.pipelines.checkout

    sys.modules[__name__] = tfvae.pipelines.checkout.same_modules()

# Beam says these on import and for every worker, through the root logger; neither concerns these pipelines.
_NOISE = ("apitools not found", "Resource module is not available")
logging.getLogger().addFilter(lambda record: not record.getMessage().startswith(_NOISE))
