"""The models that the benchmarks train, in numbers: every environment reads them, so nothing is imported here.

"mlp" is the paper's 784-500-20. "conv" is what Keras's own example of a VAE made customary: two strided convolutions,
and the decoder their mirror, a 1x1 convolution to logits at its end.
"""

PIXELS, HIDDEN, LATENT = 784, 500, 20
IMAGE = (28, 28, 1)
FILTERS = (32, 64)  # of 3x3, each halves the image
SMALL = (7, 7, 64)  # what they leave of it
EPOCHS = 3  # in one turn: nobody trains for one, and a call of fit has costs of its own
