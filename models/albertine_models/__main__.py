"""`python -m albertine_models`: the same as the installed command `albertine-models`."""

import sys

from albertine_models.command import main

sys.exit(main())
