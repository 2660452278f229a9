# Whether a machine can be served, found out before anything is changed: what deploy/install asks first. Sourced by bash
# after packages.sh; the caller defines here, the checkout. Where there is a Python for it, the doctor of this tree looks
# and tries; where there is none yet, what can be known without.

KERNEL_LEAST=5.19 # idmapped mounts below an overlay
reasons=()

# Fills reasons with all that stands in the way.
#   preflight ROOT      ROOT is where files are only staged; empty for this machine itself
preflight() {
    reasons=()
    if [ -z "$1" ]; then
        check_rights
        check_systemd
        check_programs
    fi
    check_python "$1"
    if [ -n "$1" ]; then return; fi
    if find_python; then
        check_by_doctor "$(if command -v apt-get >/dev/null && [ -n "$(missing_packages any)" ]; then echo unpacked; fi)"
    else
        check_kernel
        check_cgroups
    fi
}

# Every fault the doctor finds is a reason, but for what packages that are still missing may bring.
#   check_by_doctor [unpacked]
check_by_doctor() {
    local fault faults
    faults=$(
        "$python" -I -B - "$here" "${1:-}" 2>>"$log" <<'PYTHON'
import sys

sys.path.insert(0, sys.argv[1])
from supervisor.doctor.checks import examine
from supervisor.doctor.findings import Standing, printable
from supervisor.doctor.place import place_of

BROUGHT_BY_PACKAGES = {"runtime", "conmon", "programs", "firewall"}
for check, findings in examine(place_of(None), before=True):
    for one in findings:
        later = sys.argv[2] and check in BROUGHT_BY_PACKAGES
        if one.standing is Standing.BROKEN and not later:
            print(printable(f"{one.subject}: {one.said}" + (f" ({one.advice})" if one.advice else "")))
PYTHON
    ) || cannot "the doctor could not look: see $log"
    while IFS= read -r fault; do
        if [ -n "$fault" ]; then cannot "$fault"; fi
    done <<<"$faults"
}

cannot() { reasons+=("$*"); }

check_rights() {
    [ "$(id -u)" = 0 ] || cannot "this needs root: sudo deploy/install"
}

check_systemd() {
    if [ ! -d /run/systemd/system ] || ! command -v systemctl >/dev/null; then
        cannot "systemd does not run here; without it the daemon is run by hand (README.md, \"Without systemd\")"
    fi
}

# older A B: version A is lower than B
older() { [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# has MODULE SYMBOL: it is loaded, can be loaded, or is built in and has this function
has() {
    [ -d "/sys/module/$1" ] || modprobe --quiet --dry-run "$1" 2>/dev/null ||
        [ ! -e /proc/kallsyms ] || grep -qw "$2" /proc/kallsyms
}

check_kernel() {
    local release
    release=$(uname -r)
    if older "${release%%-*}" "$KERNEL_LEAST"; then
        cannot "the kernel is $release; $KERNEL_LEAST or newer is needed (idmapped mounts below an overlay)"
    fi
    grep -qw overlay /proc/filesystems || has overlay ovl_fill_super ||
        cannot "the kernel has no overlay file system (CONFIG_OVERLAY_FS, or the module overlay)"
    if [ ! -e /proc/self/ns/user ]; then
        cannot "the kernel has no user namespaces (CONFIG_USER_NS)"
    elif [ "$(cat /proc/sys/user/max_user_namespaces)" = 0 ]; then
        cannot "user namespaces are switched off here: sysctl user.max_user_namespaces is 0"
    fi
    has nf_tables nf_tables_newtable || cannot "the kernel has no nftables (CONFIG_NF_TABLES, or the module nf_tables)"
    has bridge br_dev_setup || cannot "the kernel has no bridges (CONFIG_BRIDGE, or the module bridge)"
    has veth veth_setup || cannot "the kernel has no veth pairs (CONFIG_VETH, or the module veth)"
    [ -e /proc/sys/kernel/seccomp ] || cannot "the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)"
}

check_cgroups() {
    local controller have
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        have=$(cat /sys/fs/cgroup/cgroup.controllers)
    else
        have=$(awk 'NR > 1 && $4 == 1 { print $1 }' /proc/cgroups | tr '\n' ' ')
    fi
    for controller in cpu memory pids; do
        case " $have " in
            *" $controller "*) ;;
            *) cannot "the kernel's cgroup controller $controller is off (see cgroup_disable= and cgroup_enable= on its command line)" ;;
        esac
    done
}

# Programs that are missing have to be in a package that can be had.
check_programs() {
    command -v crun runc >/dev/null || can_have crun runc || cannot "there is no OCI runtime, crun or runc, and no package of one"
    command -v conmon >/dev/null || can_have conmon || cannot "there is no conmon, and no package of it"
    ldconfig -p 2>/dev/null | grep -q 'libnftables\.so\.1 ' || can_have libnftables1 ||
        cannot "there is no libnftables.so.1, and no package of it"
}

# One of the packages is installed, or can be.
can_have() {
    command -v apt-get >/dev/null || return 1
    local package
    for package in "$@"; do
        if installed "$package" || known "$package"; then return 0; fi
    done
    # Package lists are no part of the machine's state worth guarding: an empty cache would make us refuse for nothing.
    [ "$(id -u)" = 0 ] && [ -z "$updated" ] || return 1
    update
    for package in "$@"; do
        if known "$package"; then return 0; fi
    done
    return 1
}

check_python() {
    if find_python; then
        "$python" -c 'import ensurepip, venv' 2>/dev/null && return
        can_have "$("$python" -c 'import sys; print(f"python3.{sys.version_info.minor}-venv")')" ||
            cannot "$("$python" -V) has no venv module, and there is no package of it"
        return
    fi
    if [ -n "${1:-}" ] || ! command -v apt-get >/dev/null || [ -z "$(other_pythons)" ]; then
        cannot "Python 3.$PYTHON_MINOR_LEAST or newer is needed below /usr/bin, here is $(/usr/bin/python3 -V 2>/dev/null || echo none), and no package of one"
    fi
}
