"""Rényi Divergence Variational Inference (Li & Turner, arXiv 1602.02311)."""
