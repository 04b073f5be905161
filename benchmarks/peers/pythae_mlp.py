"""The VAE in pythae, by its own trainer.

python -m benchmarks.peers.pythae_mlp ROWS.npy BATCH
"""

import contextlib
import logging
import sys
import tempfile

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import nn

from benchmarks.peers.turns import take_turns

EPOCHS, HIDDEN, LATENT = 3, 500, 20


class Encoder(BaseEncoder):
    def __init__(self, pixels: int):
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(pixels, HIDDEN), nn.Tanh())
        self.mean, self.log_variance = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)

    def forward(self, x: torch.Tensor) -> ModelOutput:
        hidden = self.hidden(x)
        return ModelOutput(embedding=self.mean(hidden), log_covariance=self.log_variance(hidden))


class Decoder(BaseDecoder):
    def __init__(self, pixels: int):
        super().__init__()
        layers = (nn.Linear(LATENT, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, pixels), nn.Sigmoid())
        self.layers = nn.Sequential(*layers)

    def forward(self, z: torch.Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z))


class Losses(TrainingCallback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_log(self, training_config, logs, **kwargs) -> None:
        if "train_epoch_loss" in logs:
            self.values.append(float(logs["train_epoch_loss"]))


def main(path: str, batch_size: int) -> None:
    torch.manual_seed(0)
    logging.disable(logging.WARNING)
    x = torch.from_numpy(np.load(path))
    data = BaseDataset(x, torch.zeros(len(x)))
    pixels = x.shape[1]
    config = VAEConfig(input_dim=(pixels,), latent_dim=LATENT, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(pixels), decoder=Decoder(pixels))

    def turn() -> tuple[int, list[float]]:
        losses = Losses()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            settings = BaseTrainerConfig(
                output_dir=folder,
                num_epochs=EPOCHS,
                learning_rate=1e-3,
                per_device_train_batch_size=batch_size,
                optimizer_cls="Adam",
                no_cuda=True,
            )
            BaseTrainer(model, data, training_config=settings, callbacks=[losses]).train()
        return EPOCHS * len(x), losses.values

    take_turns(turn)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
