"""The side of scvi-tools, run by a Python that has it: ``python scvi_side.py ROWS ANSWER FAMILY EPOCHS SEED SAMPLES``.

Bounds are computed here from its module's q(z|x) and p(x|z), for ``get_marginal_ll`` divides by another number of
passes than it has made where the samples are no multiple of a pass.
"""

import json
import math
import sys
import time
from typing import Any

BATCH_SIZE, DRAWS = 112, 10


def main(rows: str, answer: str, family: str, epochs: int, seed: int, samples: int) -> None:
    """Train on ROWS, and write what is measured of the held out to ANSWER."""
    import anndata
    import numpy as np
    import scvi
    import torch

    scvi.settings.seed = seed
    with np.load(rows) as file:
        train, test = file["train"], file["test"]
    cells = anndata.AnnData(train)
    scvi.model.SCVI.setup_anndata(cells)
    model = scvi.model.SCVI(cells, gene_likelihood={"N": "nb", "Z": "zinb"}[family[0]])
    plan = {"lr": 1e-3, "eps": 1e-8, "weight_decay": 0.0, "n_epochs_kl_warmup": max(1, epochs // 2)}
    options: dict[str, Any] = {"train_size": 1.0, "batch_size": BATCH_SIZE, "accelerator": "cpu", "plan_kwargs": plan}
    options.update(enable_progress_bar=False, logger=False, enable_checkpointing=False)
    clock = Clock()
    started = time.perf_counter()
    model.train(max_epochs=epochs, callbacks=[clock.callback()], **options)
    seconds = time.perf_counter() - started
    model.module.eval()
    with torch.no_grad():
        log_weights, bound = measured(model.module, torch.from_numpy(test), samples)
    found = {
        "elbo": float(bound.mean()),
        "log_marginal": float((torch.logsumexp(log_weights, 0) - math.log(samples)).mean()),
        "seconds": seconds,
        "rows_a_cpu_second": (epochs - 1) * len(train) / (clock.last - clock.first),
        "scvi": scvi.__version__,
    }
    with open(answer, "w", encoding="utf-8") as file:
        json.dump(found, file)


class Clock:
    """When the first and the last epoch ended, in processor time."""

    first = last = 0.0

    def callback(self) -> Any:
        """For Lightning."""
        import lightning.pytorch as lightning

        clock = self

        class Ends(lightning.callbacks.Callback):
            def on_train_epoch_end(self, *_: Any) -> None:
                clock.last = time.process_time()
                clock.first = clock.first or clock.last

        return Ends()


def measured(module: Any, x: Any, samples: int) -> tuple[Any, Any]:
    """log p(x, z) - log q(z|x), ``[K, B]``, and the ELBO with its KL exact, ``[B]``, nats."""
    import torch

    batch = torch.zeros(len(x), 1, dtype=torch.long)

    def draw(k: int) -> tuple[Any, Any]:
        inferred = module.inference(x, batch, n_samples=k)
        made = module.generative(inferred["z"], inferred["library"], batch)
        return inferred["qz"], (inferred["z"], made["px"].log_prob(x).sum(-1))

    q, (_, log_likelihood) = draw(DRAWS)
    prior = torch.distributions.Normal(torch.zeros_like(q.loc), 1.0)
    kl = torch.distributions.kl_divergence(q, prior).sum(-1)
    pieces: list[Any] = []
    for _ in range(-(-samples // 50)):
        k = min(50, samples - 50 * len(pieces))
        q, (z, log_p) = draw(k)
        pieces.append((log_p + (prior.log_prob(z) - q.log_prob(z)).sum(-1)).reshape(k, -1))
    return torch.cat(pieces), log_likelihood.mean(0) - kl


if __name__ == "__main__":
    paths_and_family, numbers = sys.argv[1:4], [int(number) for number in sys.argv[4:7]]
    main(*paths_and_family, *numbers)  # type: ignore[arg-type]
