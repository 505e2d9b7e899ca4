# scw-userdata completion for fish, made by make-completion: do not edit.
complete -c scw-userdata -f
complete -c scw-userdata -s d -l delete -d 'delete KEY'
complete -c scw-userdata -l timeout -x -d 'how long to try (10); 0: forever'
complete -c scw-userdata -l once -d 'try once only'
complete -c scw-userdata -s q -l quiet -d 'show no progress on a terminal'
complete -c scw-userdata -s v -l verbose -d 'print a line for each failed try'
complete -c scw-userdata -l url -x -d 'the service; may be repeated (USERDATA_IP or METADATA_IP with METADATA_PORT, else 169.254.42.42 and fd00:42::42)'
complete -c scw-userdata -s h -l help -d 'print this and exit'
complete -c scw-userdata -s V -l version -d 'print the version and exit'
