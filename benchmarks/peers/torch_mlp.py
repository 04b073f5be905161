"""The VAE in PyTorch: rows in memory, a permutation an epoch, fused Adam, eager or through ``torch.compile``.

python -m benchmarks.peers.torch_mlp ROWS.npy BATCH [--compiled]
"""

import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.turns import take_turns

EPOCHS, HIDDEN, LATENT = 3, 500, 20


class VAE(nn.Module):
    def __init__(self, pixels: int):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, pixels))
        for layer in (*self.encoder, *self.decoder):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The negative ELBO of a batch, the mean over its rows."""
        loc, raw_scale = self.encoder(x).chunk(2, dim=-1)
        scale = functional.softplus(raw_scale)
        logits = self.decoder(loc + scale * torch.randn_like(scale))
        reconstruction = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum()
        return (reconstruction + kl) / len(x)


def main(path: str, batch_size: int, compiled: bool) -> None:
    torch.manual_seed(0)
    data = torch.from_numpy(np.load(path))
    model = VAE(data.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    loss_of = torch.compile(model) if compiled else model

    def epoch() -> float:
        total = torch.zeros([])
        for rows in torch.randperm(len(data)).split(batch_size):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(data[rows])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        return float(total) / len(data)

    take_turns(lambda: (EPOCHS * len(data), [epoch() for _ in range(EPOCHS)]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), "--compiled" in sys.argv)
