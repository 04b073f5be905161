"""Bits per dimension of photographs (Salimans et al., arXiv 1701.05517)."""
