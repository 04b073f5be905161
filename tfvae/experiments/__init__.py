"""Experiments as code: a room a paper, each with its models, its command and the numbers to expect.

``tfvae reproduce`` is their command line. What they share lies here: learning curves that survive a stop, and figures
of ours over a paper's own.
"""
