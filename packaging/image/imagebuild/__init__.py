"""Builds an image of OpenBSD for this cloud: an unattended installation in QEMU.

answers.py   pure: the response file of autoinstall(8)
console.py   pure: the dialogue on the serial console
commands.py  pure: what is run, and what to run then in the cloud
medium.py    the install image and its checksum
machine.py   the only QEMU and the only HTTP server
cli.py       puts them together: argv in, exit status out
"""
