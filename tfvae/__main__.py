"""``python -m tfvae``: the ``tfvae`` command where its script is not on the path."""

from tfvae.command import main

main(prog_name="python -m tfvae")
