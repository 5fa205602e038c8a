# Sourced by the other scripts: where things are, and how to install what is missing. Not run by itself.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mesh-rs
PATH=$PATH:/usr/sbin:/sbin

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# install PACKAGE...: Debian packages, if we may; otherwise says what to install.
install() {
    [ $# -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! has apt-get; then
        die "missing: install these packages (Debian's names): $*"
    fi
    say "installing $*"
    # A run level of 1 keeps packages from starting the services they bring.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    apt-get update -qq </dev/null
    apt-get install -qq -y --no-install-recommends "$@" </dev/null >/dev/null
}
