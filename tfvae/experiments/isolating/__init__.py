"""Isolating Sources of Disentanglement in VAEs (Chen et al., arXiv 1802.04942)."""
