import sys

from shtopk.show.command import main

sys.exit(main())
