"""Builds an image of OpenBSD for this cloud: an unattended installation in QEMU.

answers.py   pure: the response file of autoinstall(8)
console.py   pure: the dialogue on the serial console
commands.py  pure: what is run, and what to run then in the cloud
trial.py     pure: whether a finished image does on a server what it is for
disk.py      pure: what OpenBSD has left on its disk
leaving.py   pure: what lies beside an image, which volume may be overwritten
medium.py    the install image and its checksum
volume.py    a look at a block device
machine.py   QEMU for the installation, and the only HTTP server
runner.py    QEMU for a trial, with the emulator behind 169.254.42.42
relay.py     joins a connection of a guest to the emulator; a program of its own
report.py    tells people, or programs, how far it is
cli.py       puts them together: argv in, exit status out
"""
