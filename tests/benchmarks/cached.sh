#!/bin/sh
# The way of the vendor's script with --cached, as far as it is known: one value
# out of the text form, its outer quotes stripped.
# cached.sh FILE KEY
grep "^$2=" "$1" | head -n 1 | cut -d = -f 2- | sed "s/^'\(.*\)'\$/\1/"
