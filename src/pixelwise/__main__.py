"""`python -m pixelwise`: the command, as `torchrun -m pixelwise` starts it in several processes."""

from pixelwise.cli import main

main()
