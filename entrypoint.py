"""What the container runs. The Dockerfile starts it with an absolute, isolated interpreter: the runner's PATH leaks in."""

import sys

from hfexport.cli import main

sys.exit(main())
