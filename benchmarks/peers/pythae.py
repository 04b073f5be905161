"""The VAE in pythae, by its own trainer; the networks are those of the PyTorch side.

python -m benchmarks.peers.pythae ROWS.npy {mlp,conv} BATCH
"""

import contextlib
import logging
import sys
import tempfile

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import nn

from benchmarks.peers.torch import NETWORKS, initialised, parameters, rows
from benchmarks.peers.turns import take_turns
from benchmarks.sizes import EPOCHS, LATENT


class Encoder(BaseEncoder):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = initialised(network)

    def forward(self, x: torch.Tensor) -> ModelOutput:
        mean, log_variance = self.network(x).chunk(2, dim=-1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = initialised(network)

    def forward(self, z: torch.Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=torch.sigmoid(self.network(z)))


def vae(name: str, x: torch.Tensor) -> VAE:
    encoder, decoder = NETWORKS[name]()
    config = VAEConfig(input_dim=tuple(x.shape[1:]), latent_dim=LATENT, reconstruction_loss="bce")
    return VAE(config, encoder=Encoder(encoder), decoder=Decoder(decoder))


class Losses(TrainingCallback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_log(self, training_config, logs, **kwargs) -> None:
        if "train_epoch_loss" in logs:
            self.values.append(float(logs["train_epoch_loss"]))


def main(path: str, name: str, batch_size: int) -> None:
    torch.manual_seed(0)
    logging.disable(logging.WARNING)
    x = rows(path, name)
    data = BaseDataset(x, torch.zeros(len(x)))
    model = vae(name, x).to(memory_format=torch.channels_last)

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

    take_turns(turn, parameters(model))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
