"""The carried models in PyTorch: eager, through ``torch.compile``, and with K steps as one CUDA graph.

PyTorch pads a strided convolution before the image where TensorFlow pads it behind. So that a plain ``padding=1`` is
the same model, the images lie here mirrored in both axes, and so do the weights.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.gpu.carried import Case

WARM_UP_STEPS = 3  # before a capture, as PyTorch asks; they train the model a little further


class VAE(nn.Module):
    """The model of a case, at its initial weights."""

    def __init__(self, case: Case):
        super().__init__()
        kernels = case.initial_weights[::2]
        build = _convolutional if case.model == "conv" else _mlp
        self.encoder, self.decoder = build([tuple(kernel.shape) for kernel in kernels])
        layers = [layer for layer in (*self.encoder, *self.decoder) if hasattr(layer, "weight")]
        values = _mirrored(case.initial_weights) if case.model == "conv" else _transposed(case.initial_weights)
        with torch.no_grad():
            for layer, (weight, bias) in zip(layers, values, strict=True):
                layer.weight.copy_(torch.from_numpy(weight.copy()))
                layer.bias.copy_(torch.from_numpy(bias.copy()))

    def means(self, x: torch.Tensor) -> torch.Tensor:
        """The means of q(z|x), ``[B, D]``, for bytes."""
        return self.encoder(x.float() / 255).chunk(2, dim=-1)[0]

    def forward(self, x: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """The negative ELBO of a batch of bytes, the mean over its rows, nats."""
        x = x.float() / 255
        loc, raw_scale = self.encoder(x).chunk(2, dim=-1)
        scale = functional.softplus(raw_scale)
        logits = self.decoder(loc + scale * (torch.randn_like(scale) if noise is None else noise))
        reconstruction = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum()
        return (reconstruction + kl) / len(x)


def _mlp(shapes: list[tuple[int, ...]]) -> tuple[nn.Sequential, nn.Sequential]:
    first, parameters, second, logits = (nn.Linear(*shape) for shape in shapes)
    return nn.Sequential(first, nn.Tanh(), parameters), nn.Sequential(second, nn.Tanh(), logits)


def _convolutional(shapes: list[tuple[int, ...]]) -> tuple[nn.Sequential, nn.Sequential]:
    half = len(shapes) // 2
    *convolutions, parameters = shapes[:half]
    dense, *transposed, logits = shapes[half:]
    channels = transposed[0][3]
    side = round((dense[1] / channels) ** 0.5)
    encoder: list[nn.Module] = []
    for *_, into, out in convolutions:
        encoder += [nn.Conv2d(into, out, 3, stride=2, padding=1), nn.ReLU()]
    decoder = [nn.Linear(*dense), nn.ReLU(), nn.Unflatten(1, (channels, side, side))]
    for *_, out, into in transposed:
        decoder += [nn.ConvTranspose2d(into, out, 3, stride=2, padding=1, output_padding=1), nn.ReLU()]
    encoder += [nn.Flatten(), nn.Linear(*parameters)]
    return nn.Sequential(*encoder), nn.Sequential(*decoder, nn.Conv2d(*logits, 1))


def _transposed(weights: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(kernel.T, bias) for kernel, bias in zip(weights[::2], weights[1::2], strict=True)]


def _mirrored(weights: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Keras's weights of the convolutional model for mirrored images, channels first."""
    layers = list(zip(weights[::2], weights[1::2], strict=True))
    half = len(layers) // 2
    *convolutions, (parameters, parameters_bias) = layers[:half]
    (dense, dense_bias), *transposed, (logits, logits_bias) = layers[half:]
    channels = convolutions[-1][0].shape[3]

    def unfolded(features: np.ndarray) -> np.ndarray:  # [H * W * C, ...] -> [C * H * W, ...]
        side = round((len(features) / channels) ** 0.5)
        image = features.reshape(side, side, channels, -1)[::-1, ::-1].transpose(2, 0, 1, 3)
        return image.reshape(features.shape)

    found = [(kernel[::-1, ::-1].transpose(3, 2, 0, 1), bias) for kernel, bias in convolutions]
    found.append((unfolded(parameters).T, parameters_bias))
    found.append((unfolded(dense.T), unfolded(dense_bias)))
    found += [(kernel[::-1, ::-1].transpose(3, 2, 0, 1), bias) for kernel, bias in transposed]
    return [*found, (logits.T[:, :, None, None], logits_bias)]


def images(rows: np.ndarray, case: Case) -> np.ndarray:
    """Rows ``[N, 784]`` as the model takes them."""
    if case.model != "conv":
        return rows
    return np.ascontiguousarray(rows.reshape(len(rows), *case.event_shape).transpose(0, 3, 1, 2)[..., ::-1, ::-1])


class TorchSide:
    """From the carried weights on, as ``ProgramSide``; ``way`` is ``"eager"``, ``"compiled"`` or ``"graphs"``."""

    def __init__(self, case: Case, rows: np.ndarray, precision: str, way: str, device: str):
        torch.manual_seed(0)
        torch.compiler.reset()  # or the next case's shapes would be compiled as variable ones
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = True
        self._case = case
        self._data = torch.from_numpy(images(rows, case)).to(device)
        size = len(case.embed.inputs[0])
        self._batches = self._data[: len(rows) // size * size].split(size)
        model, encoder = (VAE(case).to(device, memory_format=_memory_format(case)) for _ in range(2))
        compiled: Callable[[Any], Any] = (lambda function: function) if way == "eager" else torch.compile
        self._loss_of, self._means = compiled(model), compiled(encoder.means)
        self._optimizer = torch.optim.Adam(
            model.parameters(), case.learning_rate, eps=case.epsilon, fused=True, capturable=way == "graphs"
        )
        self._train = self._steps
        if way == "graphs":
            rows_of_call = torch.zeros([case.steps, case.batch_size], dtype=torch.int64, device=device)
            self._train = captured(self._steps, rows_of_call, lambda: self._steps(rows_of_call[:WARM_UP_STEPS]))
            self._means = captured(torch.no_grad()(self._means), self._batches[0].clone())

    def _steps(self, rows: torch.Tensor) -> torch.Tensor:
        """A step for each batch of row numbers ``[K, B]``; the sum of their losses."""
        total = torch.zeros([], device=rows.device)
        for batch in rows:
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._loss_of(self._data[batch])
            loss.backward()
            self._optimizer.step()
            total += loss.detach()
        return total

    def epoch(self) -> float:
        case = self._case
        calls = case.calls(len(self._data))
        order = torch.randperm(len(self._data), device=self._data.device)[: calls * case.steps * case.batch_size]
        total = torch.zeros([], device=self._data.device)
        for rows in order.view(calls, case.steps, case.batch_size):
            total += self._train(rows)
        return float(total) / (calls * case.steps)

    @torch.no_grad()
    def embed(self) -> np.ndarray:
        means = [self._means(x) for x in self._batches]
        if self._data.is_cuda:
            torch.cuda.synchronize()
        return means[0].cpu().numpy()


def _memory_format(case: Case) -> torch.memory_format:
    return torch.channels_last if case.model == "conv" else torch.preserve_format


def captured(function: Callable, buffer: torch.Tensor, warm_up: Callable[[], Any] | None = None) -> Callable:
    """``function(x)`` as one CUDA graph that reads ``buffer``, into which each x is copied first."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        warm_up() if warm_up else [function(buffer) for _ in range(WARM_UP_STEPS)]
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(buffer)

    def replay(x: torch.Tensor) -> torch.Tensor:
        buffer.copy_(x)
        graph.replay()
        return result.clone()

    return replay
