"""What the container runs, with an absolute and isolated interpreter: the runner's PATH leaks in."""

import sys

from hfexport.cli import main

sys.exit(main())
