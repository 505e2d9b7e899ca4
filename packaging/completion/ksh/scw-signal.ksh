# shellcheck shell=ksh disable=SC2034,SC2046 # for the shell; words are meant
# Completion for OpenBSD's ksh(1), made by make-completion: do not edit.
# Source it from ~/.kshrc. That shell completes nothing for a command with a
# hyphen in its name, so type scw_metadata for scw-metadata. The keys are
# those of the document that was stored when the shell began.
alias scw_metadata=scw-metadata
set -A complete_scw_metadata -- --cached --max-age --json --sh --prefix --list-keys --ssh-keys --account --timeout --once --quiet --verbose --run-dir --url --help --version -q -v -h -V $(sed -n -e 's/=.*//' -e '/^[A-Z0-9_][A-Z0-9_]*$/p' /var/run/scw_signal/metadata.flat 2>/dev/null)
alias scw_metadata_json=scw-metadata-json
set -A complete_scw_metadata_json -- --cached --max-age --timeout --once --quiet --verbose --run-dir --url --help --version -q -v -h -V $(sed -n -e 's/=.*//' -e '/^[A-Z0-9_][A-Z0-9_]*$/p' /var/run/scw_signal/metadata.flat 2>/dev/null)
alias scw_signal_state=scw-signal-state
set -A complete_scw_signal_state -- --timeout --once --quiet --verbose --url --help --version -q -v -h -V booted
alias scw_signald=scw-signald
set -A complete_scw_signald -- --debug --verbose --check --json --deadline --dns-name --dns-timeout --no-dns --set-hostname --run-user-data --run-dir --url --help --version -d -v -n -h -V
alias scw_userdata=scw-userdata
set -A complete_scw_userdata -- --delete --timeout --once --quiet --verbose --url --help --version -d -q -v -h -V
