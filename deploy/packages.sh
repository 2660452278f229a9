# What Bakehouse needs from the distribution, for deploy/setup and deploy/install. Sourced by bash; the caller defines
# say, fail and log.

PYTHON_MINOR_LEAST=11

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
known() { [ -n "$(apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *\([^(].*\)$/\1/p')" ]; }

updated=
update() {
    [ -n "$updated" ] && return
    say "reading the package lists"
    apt-get -q update >>"$log" 2>&1 || say "some package lists could not be read; going on with those that are here"
    updated=yes
}

# Sets python to the distribution's first that is new enough, whatever else is on the path.
python=
find_python() {
    local candidate
    for candidate in /usr/bin/python3 /usr/bin/python3.1[1-9]; do
        if [ -x "$candidate" ] &&
            "$candidate" -c "import sys; sys.exit(sys.version_info < (3, $PYTHON_MINOR_LEAST))"; then
            python=$candidate
            return 0
        fi
    done
    return 1
}

# The minor versions beside the system's own python3 that this distribution has, the newest first.
other_pythons() {
    local minor
    for minor in 15 14 13 12 11; do
        if [ "$minor" -ge "$PYTHON_MINOR_LEAST" ] && known "python3.$minor-venv"; then printf '%s\n' "$minor"; fi
    done
}

# Prints the packages that are missing here, one a line.
#   missing_packages any PACKAGE...     one OCI runtime is enough; further packages that are wanted
#   missing_packages both PACKAGE...    both of them: the tests try both
missing_packages() {
    local runtimes=$1 package
    shift
    for package in ca-certificates conmon libnftables1 iproute2 mmdebstrap tini "$@"; do
        installed "$package" || printf '%s\n' "$package"
    done
    if [ "$runtimes" = both ] || ! command -v crun runc >/dev/null; then
        for package in crun runc; do
            command -v "$package" >/dev/null || printf '%s\n' "$package"
        done
    fi
    # Without the keys, mmdebstrap cannot make an image of Debian on Ubuntu.
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || printf 'debian-archive-keyring\n'
    [ -e /usr/share/containers/seccomp.json ] || printf 'golang-github-containers-common\n'
    if ! find_python; then
        printf 'python3\npython3-venv\n'
    elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -c 'import sys; print(f"python3.{sys.version_info.minor}-venv")'
    fi
}

# Installs those of the packages that this distribution has, and no service with them.
install_packages() {
    local package wanted=()
    [ $# -gt 0 ] || return 0
    update
    for package in "$@"; do
        if known "$package"; then
            wanted+=("$package")
        elif [ "$package" = golang-github-containers-common ] && known containers-common; then
            wanted+=(containers-common)
        else
            say "this distribution has no package $package"
        fi
    done
    [ ${#wanted[@]} -gt 0 ] || return 0
    say "installing ${wanted[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${wanted[@]}" >>"$log" 2>&1 ||
        fail "install ${wanted[*]}"
}

# Sets python, installing a newer one beside the system's where that is too old.
want_python() {
    local minor
    find_python && return
    update
    minor=$(other_pythons | head -n 1)
    [ -n "$minor" ] && install_packages "python3.$minor" "python3.$minor-venv"
    find_python || fail "find Python 3.$PYTHON_MINOR_LEAST or newer below /usr/bin"
}

# Unpacks the docker command into a directory: nothing is installed or started by that, no other engine either.
#   unpack_docker DIRECTORY
unpack_docker() {
    local package
    known docker-cli || known docker.io || update
    for package in docker-cli docker.io; do
        known "$package" || continue
        say "unpacking the docker command of the package $package into $1"
        (
            set -e
            mkdir -p "$1"
            cd "$1"
            apt-get -q download "$package" >>"$log" 2>&1
            dpkg-deb --fsys-tarfile "$package"_*.deb | tar -x ./usr/bin/docker
            rm -f "$package"_*.deb
        ) && return 0
    done
    return 1
}
