"""TensorFlow's own programs on a machine that holds no TensorFlow, beside the same models in JAX and PyTorch."""
