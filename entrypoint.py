"""What the container runs, with an absolute and isolated interpreter: the runner's PATH leaks in."""

from hfexport.cli.main import command

command()
