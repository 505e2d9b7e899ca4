# scw-metadata completion for fish, made by make-completion: do not edit.
complete -c scw-metadata -f
complete -c scw-metadata -l cached -d 'use what is stored; if nothing is stored, ask the service and store its answer'
complete -c scw-metadata -l max-age -x -d 'like --cached, but use nothing older'
complete -c scw-metadata -l json -d 'print JSON; with KEY, that part of it'
complete -c scw-metadata -l sh -d 'print assignments that are safe to source'
complete -c scw-metadata -l prefix -x -d 'prefix of the names that --sh prints (SCW_)'
complete -c scw-metadata -l list-keys -d 'print the keys only; with KEY, those below it'
complete -c scw-metadata -l ssh-keys -d 'print the SSH keys; KEY is the user, sshd\'s %u'
complete -c scw-metadata -l account -x -d 'user who may log in (root); may be repeated'
complete -c scw-metadata -l timeout -x -d 'how long to try (10); 0: forever'
complete -c scw-metadata -l once -d 'try once only'
complete -c scw-metadata -s q -l quiet -d 'show no progress on a terminal'
complete -c scw-metadata -s v -l verbose -d 'print a line for each failed try'
complete -c scw-metadata -l run-dir -x -a '(__fish_complete_directories)' -d 'where the stored files are (/var/run/scw_signal)'
complete -c scw-metadata -l url -x -d 'the service; may be repeated (METADATA_IP with METADATA_PORT, else 169.254.42.42 and fd00:42::42)'
complete -c scw-metadata -s h -l help -d 'print this and exit'
complete -c scw-metadata -s V -l version -d 'print the version and exit'
complete -c scw-metadata -a "(sed -n -e 's/=.*//' -e '/^[A-Z0-9_][A-Z0-9_]*\$/p' /var/run/scw_signal/metadata.flat 2>/dev/null)"
