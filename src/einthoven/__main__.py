"""`python -m einthoven`, which `torchrun` needs."""

from einthoven.cli import main

main()
