#!/bin/sh
# The way of the vendor's script, as far as it is known: one request, and that is it.
# signal.sh URL
curl -sf -m 5 -X PATCH -H "Content-Type: application/json" \
    -d '{"state_detail": "booted"}' "$1/state" >/dev/null || exit 1
echo "booted signal sent!"
