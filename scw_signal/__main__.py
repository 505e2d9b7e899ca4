"""`python3 -m scw_signal`: lists the commands."""

import os
import sys

from scw_signal import __version__

TEXT = f"""\
scw-signal {__version__} has these commands:

  scw-signald        waits for the network, signals that this server has booted
  scw-signal-state   sends a signal by hand
  scw-metadata       prints the metadata of this server, or values of it
  scw-metadata-json  prints the metadata of this server as JSON
  scw-userdata       lists, prints, sets and deletes user data

Each has a manual and --help. An emulated service to try them with:
python3 -m scw_signal.emulator
"""

if __name__ == "__main__":
    try:
        os.write(1, TEXT.encode())
    except OSError:
        sys.exit(1)
