#!/bin/sh
# The way of the vendor's script, as far as it is known: one value out of what the
# service says in its text form, its outer quotes stripped.
# live.sh URL KEY
curl -sf -m 5 "$1/conf" | grep "^$2=" | head -n 1 | cut -d = -f 2- |
    sed "s/^'\(.*\)'\$/\1/"
