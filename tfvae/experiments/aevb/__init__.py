"""Auto-Encoding Variational Bayes (Kingma & Welling, arXiv 1312.6114): its settings, and its figures."""
