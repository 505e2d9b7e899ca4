#!/bin/sh
# What the vendor's script does with --cached, as far as is known: take one value
# from the text form, and strip its outer quotes.
# cached.sh FILE KEY
grep "^$2=" "$1" | head -n 1 | cut -d = -f 2- | sed "s/^'\(.*\)'\$/\1/"
