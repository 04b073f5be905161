"""Importance Weighted Autoencoders (Burda et al., arXiv 1509.00519)."""
