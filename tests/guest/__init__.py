"""A guest of the tests' own, small enough to boot without KVM: what --try tries here.

disk.py   what OpenBSD leaves on a disk: GPT, disklabel, superblock; for both sides
init.py   runs in the guest, as the only process but for those that it starts
build.py  makes a disk that boots by EFI of Debian's kernel, Python and the agent
"""
