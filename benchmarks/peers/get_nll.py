"""pythae's ``get_nll`` on given weights.

python -m benchmarks.peers.get_nll ROWS.npy WEIGHTS.npz SAMPLES BATCH
"""

import sys

import numpy as np
import torch

from benchmarks.peers.pythae import vae
from benchmarks.peers.torch import rows
from benchmarks.peers.turns import take_turns


def load(model: torch.nn.Module, weights: dict[str, np.ndarray]) -> None:
    """Weights by the names of PyTorch's own ``state_dict``; a Keras kernel is a PyTorch weight transposed."""
    state = {name: torch.from_numpy(value.T if value.ndim == 2 else value) for name, value in weights.items()}
    model.load_state_dict(state)


def main(path: str, weights: str, num_samples: int, batch_size: int) -> None:
    x = rows(path, "mlp")
    model = vae("mlp", x)
    load(model, dict(np.load(weights)))
    model.eval()
    torch.manual_seed(0)

    def turn() -> tuple[int, list[float]]:
        with torch.no_grad():
            return len(x), [float(model.get_nll(x, n_samples=num_samples, batch_size=batch_size))]

    take_turns(turn)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
