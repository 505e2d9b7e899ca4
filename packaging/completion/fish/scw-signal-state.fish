# scw-signal-state completion for fish, made by make-completion: do not edit.
complete -c scw-signal-state -f
complete -c scw-signal-state -l timeout -x -d 'how long to try (30); 0: forever'
complete -c scw-signal-state -l once -d 'try once only'
complete -c scw-signal-state -s q -l quiet -d 'print nothing but errors'
complete -c scw-signal-state -s v -l verbose -d 'print a line for each failed try'
complete -c scw-signal-state -l url -x -d 'the service; may be repeated (METADATA_IP with METADATA_PORT, else 169.254.42.42 and fd00:42::42)'
complete -c scw-signal-state -s h -l help -d 'print this and exit'
complete -c scw-signal-state -s V -l version -d 'print the version and exit'
complete -c scw-signal-state -a booted
