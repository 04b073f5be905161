"""Deep generative modeling for single-cell transcriptomics (Lopez et al., Nature Methods 2018): scVI."""
