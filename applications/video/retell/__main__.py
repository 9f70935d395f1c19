import sys

from retell.cli import main

sys.exit(main())
