"""pythae's ``get_nll`` on given weights; its first answer is that for given noise, all later ones draw their own.

python -m benchmarks.peers.get_nll FOLDER SAMPLES BATCH

The folder holds rows.npy ``[N, 784]``, weights.npz and noise.npy ``[K, LATENT]``.
"""

import sys

import numpy as np
import torch
from pythae.models import VAE

from benchmarks.peers.pythae import vae
from benchmarks.peers.torch import rows
from benchmarks.peers.turns import take_turns


@torch.no_grad()
def answer(model: VAE, x: torch.Tensor, num_samples: int, batch_size: int) -> float:
    return float(model.get_nll(x, n_samples=num_samples, batch_size=batch_size))


def answer_for(model: VAE, x: torch.Tensor, noise: torch.Tensor) -> float:
    """What ``get_nll`` makes of z = mean + std noise, the same noise for each row."""
    model._sample_gauss = lambda mean, std: (mean + std * noise, noise)
    try:
        return answer(model, x, len(noise), len(noise))
    finally:
        del model._sample_gauss


def main(folder: str, num_samples: int, batch_size: int) -> None:
    x = rows(f"{folder}/rows.npy", "mlp")
    model = vae("mlp", x)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in np.load(f"{folder}/weights.npz").items()})
    model.eval()
    noise: torch.Tensor | None = torch.from_numpy(np.load(f"{folder}/noise.npy"))
    torch.manual_seed(batch_size)  # or two sides of other batch sizes would draw the same

    def turn() -> tuple[int, list[float]]:
        nonlocal noise
        given, noise = noise, None
        found = answer(model, x, num_samples, batch_size) if given is None else answer_for(model, x, given)
        return len(x), [found]

    take_turns(turn)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
