# scw-metadata-json completion for fish, made by make-completion: do not edit.
complete -c scw-metadata-json -f
complete -c scw-metadata-json -l cached -d 'use what is stored; if nothing is stored, ask the service and store its answer'
complete -c scw-metadata-json -l max-age -x -d 'like --cached, but use nothing older'
complete -c scw-metadata-json -l timeout -x -d 'how long to try (10); 0: forever'
complete -c scw-metadata-json -l once -d 'try once only'
complete -c scw-metadata-json -s q -l quiet -d 'show no progress on a terminal'
complete -c scw-metadata-json -s v -l verbose -d 'print a line for each failed try'
complete -c scw-metadata-json -l run-dir -x -a '(__fish_complete_directories)' -d 'where the stored files are (/var/run/scw_signal)'
complete -c scw-metadata-json -l url -x -d 'the service; may be repeated (METADATA_IP with METADATA_PORT, else 169.254.42.42 and fd00:42::42)'
complete -c scw-metadata-json -s h -l help -d 'print this and exit'
complete -c scw-metadata-json -s V -l version -d 'print the version and exit'
complete -c scw-metadata-json -a "(sed -n -e 's/=.*//' -e '/^[A-Z0-9_][A-Z0-9_]*\$/p' /var/run/scw_signal/metadata.flat 2>/dev/null)"
