"""`python -m scalex_eqx` is the command `scalex`."""

from .cli import main

main()
