"""On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., arXiv 1611.04273)."""
