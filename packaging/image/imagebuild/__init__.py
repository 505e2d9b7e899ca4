"""Builds an image of OpenBSD for this cloud: an unattended installation in QEMU.

answers.py      pure: the response file of autoinstall(8)
console.py      pure: the dialogue on the serial console
commands.py     pure: the commands of a build, and those to run later in the cloud
trial.py        pure: whether a finished image works on a server
disk.py         pure: reads what OpenBSD wrote to its disk
destination.py  pure: the files beside an image, and which volume may be overwritten
medium.py       the install image and its checksum
volume.py       inspects a block device
process.py      runs programs, and leaves none behind
machine.py      QEMU for the installation, and the only HTTP server
runner.py       QEMU for a trial, with the emulator behind 169.254.42.42
relay.py        connects a guest to the emulator; a separate program
report.py       reports progress to people or programs
cli.py          the command line
"""
