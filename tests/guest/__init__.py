"""A guest for testing --try, small enough to boot without KVM.

disk.py   what OpenBSD writes to a disk: GPT, disklabel, superblock; for both sides
init.py   runs in the guest, and is its only process besides those that it starts
build.py  makes an EFI disk from Debian's kernel, Python and the agent
"""
