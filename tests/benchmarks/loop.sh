#!/bin/sh
# The loop in the field: try every five seconds, until a try succeeds.
# loop.sh URL
until curl -sf -m 5 -X PATCH -H "Content-Type: application/json" \
    -d '{"state_detail": "booted"}' "$1/state" >/dev/null
do
	sleep 5
done
echo "acknowledged by $1"
