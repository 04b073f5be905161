"""The VAE in PyTorch: rows in memory, a permutation an epoch, fused Adam, eager or through ``torch.compile``.

python -m benchmarks.peers.torch ROWS.npy {mlp,conv} BATCH [--compiled]
"""

import math
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.turns import take_turns
from benchmarks.sizes import EPOCHS, FILTERS, HIDDEN, IMAGE, LATENT, PIXELS, SMALL

torch.set_flush_denormal(True)  # as TensorFlow and XLA do


def mlp() -> tuple[nn.Module, nn.Module]:
    """The encoder, x -> 2 LATENT numbers, and the decoder, z -> logits."""
    encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 2 * LATENT))
    return encoder, nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, PIXELS))


def conv() -> tuple[nn.Module, nn.Module]:
    """See ``mlp``."""
    height, width, filters = SMALL
    small = math.prod(SMALL)
    encoder = nn.Sequential(
        nn.Conv2d(1, FILTERS[0], 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(FILTERS[0], FILTERS[1], 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(small, 2 * LATENT),
    )
    decoder = nn.Sequential(
        nn.Linear(LATENT, small),
        nn.ReLU(),
        nn.Unflatten(1, (filters, height, width)),
        nn.ConvTranspose2d(filters, FILTERS[1], 3, stride=2, padding=1, output_padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(FILTERS[1], FILTERS[0], 3, stride=2, padding=1, output_padding=1),
        nn.ReLU(),
        nn.Conv2d(FILTERS[0], 1, 1),
    )
    return encoder, decoder


NETWORKS = {"mlp": mlp, "conv": conv}


def initialised(network: nn.Module) -> nn.Module:
    """Glorot's weights and biases of zero, as Keras and JAX begin."""
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network


def rows(path: str, model: str) -> torch.Tensor:
    """``[N, 784]``, or pictures ``[N, 1, 28, 28]`` with their channels last in memory, the quicker way on a CPU."""
    x = torch.from_numpy(np.load(path))
    return x if model == "mlp" else x.reshape(-1, 1, *IMAGE[:2]).to(memory_format=torch.channels_last)


def parameters(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


class VAE(nn.Module):
    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder, self.decoder = initialised(encoder), initialised(decoder)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The negative ELBO of a batch, the mean over its rows."""
        loc, raw_scale = self.encoder(x).chunk(2, dim=-1)
        scale = functional.softplus(raw_scale)
        logits = self.decoder(loc + scale * torch.randn_like(scale))
        reconstruction = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum()
        return (reconstruction + kl) / len(x)


def main(path: str, name: str, batch_size: int, compiled: bool) -> None:
    torch.manual_seed(0)
    data = rows(path, name)
    model = VAE(*NETWORKS[name]()).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    loss_of = torch.compile(model) if compiled else model

    def epoch() -> float:
        total = torch.zeros([])
        for batch in torch.randperm(len(data)).split(batch_size):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(data[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(batch)
        return float(total) / len(data)

    take_turns(lambda: (EPOCHS * len(data), [epoch() for _ in range(EPOCHS)]), parameters(model))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), "--compiled" in sys.argv)
