"""What a Flex template's launcher runs: the pipeline that the image was built for, with the template's parameters."""

import os
import sys

from tfvae.pipelines import command_line

if __name__ == "__main__":
    sys.exit(command_line.main(os.environ["TFVAE_PIPELINE"]))
