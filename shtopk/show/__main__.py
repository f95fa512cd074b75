"""Another name of `shtopk show`."""

import sys

from shtopk.commands import main

sys.exit(main(["show", *sys.argv[1:]]))
