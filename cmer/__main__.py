"""`python -m cmer`: the command line, as torchrun starts it."""

from cmer.cli.main import main

main()
