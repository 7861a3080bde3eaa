"""`python -m hfexport` is the command line."""

from __future__ import annotations

from hfexport.cli.main import command

if __name__ == "__main__":
    command()
