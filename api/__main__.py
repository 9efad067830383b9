"""`python -m api` is `atalaya`."""

from api.cli import main

main()
