"""``python -m mpidvc``."""

import sys

from mpidvc.main import main

sys.exit(main())
