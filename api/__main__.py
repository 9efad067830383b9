"""`python -m api` runs the `atalaya` command."""

from api.cli import main

main()
