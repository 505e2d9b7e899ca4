"""`python3 -m scw_signal.emulator`: see scw_signal.emulator.command."""

import sys

from scw_signal.emulator.command import main

sys.exit(main())
