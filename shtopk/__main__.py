import sys

from shtopk.commands import main

sys.exit(main())
