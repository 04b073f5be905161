"""Variational Inference with Normalizing Flows (Rezende & Mohamed, arXiv 1505.05770)."""
