"""VAE with a VampPrior (Tomczak & Welling, arXiv 1705.07120)."""
