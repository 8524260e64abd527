#!/usr/bin/env bash
# Three hosts on one machine: network namespaces, each with its own address, host name and local disk.
#
#   hosts.sh probe ROOM                     whether that is allowed here
#   hosts.sh run ROOM PER_HOST COMMAND...   runs the command under mpirun, PER_HOST processes a host
#
# HOSTS_CUT=SECONDS makes the network slow and takes it from host 2 after so long. HOSTS_RATES='A B C', rates
# as tc writes them, limits what each host sends and receives; HOSTS_PATH='FROM TO RATE' what one host sends
# to another one, beside.
# ROOM/disk1 to ROOM/disk3 are the hosts' local disks; each host sees its own at ROOM/local. Bytes that
# crossed between hosts are left in ROOM/traffic: for each host what it received and sent. All lives in
# namespaces of this process and its children, so nothing is left when they end, however they end.
set -euo pipefail

script=$(readlink -f -- "${BASH_SOURCE[0]}")
mode=$1
shift

# Runs the rest of the arguments on host $1, as a machine of its own would.
on_host() {
    local number=$1
    shift
    # shellcheck disable=SC2016 # expanded by the inner shell
    exec ip netns exec "h$number" unshare --mount --uts --ipc bash -c \
        'hostname "node$1" && mount --bind "$2/disk$1" "$2/local" && mount -t tmpfs tmpfs /dev/shm &&
            export TMPDIR=$HOSTS_TMP/$1 && mkdir -p "$TMPDIR" && shift 2 && eval "$*"' \
        host "$number" "$HOSTS_ROOM" "$@"
}

prepare() {
    # Names of namespaces are files, here only.
    mount -t tmpfs tmpfs /run
    mkdir /run/netns
    ip link add hub type bridge
    ip link set hub up
    local number
    for number in 1 2 3; do
        ip netns add "h$number"
        ip link add "v$number" type veth peer name e0 netns "h$number"
        ip link set "v$number" master hub up
        ip -n "h$number" addr add "10.77.0.$number/24" dev e0
        ip -n "h$number" link set e0 up
        ip -n "h$number" link set lo up
    done
}

counters() {
    local number
    for number in 1 2 3; do
        ip netns exec "h$number" cat /sys/class/net/e0/statistics/{rx,tx}_bytes | xargs
    done
}

# Host $1 sends and receives $2 at most, and to another one what HOSTS_PATH says.
limit() {
    tc qdisc add dev "v$1" root tbf rate "$2" burst 256kb latency 200ms
    local from to rate
    read -r from to rate <<<"${HOSTS_PATH:-}" || true
    if [ "$from" != "$1" ]; then
        ip netns exec "h$1" tc qdisc add dev e0 root tbf rate "$2" burst 256kb latency 200ms
        return
    fi
    ip netns exec "h$1" tc qdisc add dev e0 root handle 1: htb default 1
    ip netns exec "h$1" tc class add dev e0 parent 1: classid 1:1 htb rate "$2" burst 256kb
    ip netns exec "h$1" tc class add dev e0 parent 1: classid 1:2 htb rate "$rate" burst 256kb
    ip netns exec "h$1" tc filter add dev e0 parent 1: protocol ip u32 match ip dst "10.77.0.$to" flowid 1:2
}

# Runs a command with its arguments on all hosts under $MPIRUN, in the words of its kind.
start() {
    local hosts=10.77.0.1:$per_host,10.77.0.2:$per_host,10.77.0.3:$per_host
    local agent="bash $script agent" words=(-n $((3 * per_host)))
    case $("$MPIRUN" --version </dev/null 2>&1) in
    *HYDRA*)
        # Its agent is one word. UCX 1.13, by TCP alone, doesn't come to an end where a run fails.
        agent=$HOSTS_TMP/agent
        printf '#!/bin/sh\nexec bash %q agent "$@"\n' "$script" >"$agent"
        chmod +x "$agent"
        export FI_PROVIDER=tcp FI_TCP_IFACE=e0 UCX_TLS=tcp,sm,self
        words+=(-launcher rsh -launcher-exec "$agent" -iface e0 -hosts "$hosts")
        ;;
    *') 4.'*)
        words+=(--mca plm_rsh_agent "$agent" --mca plm_rsh_no_tree_spawn 1
            --mca pml ob1 --mca btl "${HOSTS_BTL:-tcp,vader,self}"
            --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24
            --oversubscribe --bind-to none --host "$hosts")
        ;;
    *)
        words+=(--prtemca plm_ssh_agent "$agent" --prtemca plm_ssh_no_tree_spawn 1
            --mca pml ob1 --mca btl "${HOSTS_BTL:-tcp,sm,self}"
            --mca btl_tcp_if_include 10.77.0.0/24 --prtemca prte_if_include 10.77.0.0/24
            --oversubscribe --bind-to none --host "$hosts")
        ;;
    esac
    on_host 1 "$(printf ' %q' "$MPIRUN" "${words[@]}" "$@")"
}

case $mode in
probe | run)
    user=()
    [ "$(id -u)" = 0 ] || user=(--user --map-root-user)
    exec unshare "${user[@]}" --net --mount --pid --fork --kill-child --mount-proc \
        bash "$script" "inside-$mode" "$@"
    ;;
inside-probe)
    export HOSTS_ROOM=$1
    mkdir -p "$1"/disk{1,2,3} "$1/local"
    export HOSTS_TMP=$1/tmp
    prepare
    (on_host 2 "test \$(hostname) = node2 && test -d $1/local")
    ;;
inside-run)
    export HOSTS_ROOM=$1
    # Several runs may share the room, each with host names and process numbers of its own.
    HOSTS_TMP=$(mktemp -d "$1/tmp.XXXX")
    export HOSTS_TMP
    per_host=$2
    shift 2
    prepare
    # As for a user of launch/mpirun.
    # shellcheck source=launch/env
    . "$(dirname -- "$script")/../../launch/env"
    before=$(counters)
    status=0
    if [ -n "${HOSTS_CUT:-}" ]; then
        # The network is slow, and host 2 loses it after so many seconds.
        for number in 1 2 3; do tc qdisc add dev "v$number" root tbf rate 10mbit burst 64kb latency 1s; done
        (sleep "$HOSTS_CUT" && ip link set v2 down) &
    fi
    if [ -n "${HOSTS_RATES:-}" ]; then
        number=0
        for rate in $HOSTS_RATES; do
            number=$((number + 1))
            limit "$number" "$rate"
        done
    fi
    (start "$@") || status=$?
    paste -d ' ' <(echo "$before") <(counters) |
        while read -r rx tx rx_now tx_now; do echo $((rx_now - rx)) $((tx_now - tx)); done \
            >"$HOSTS_ROOM/traffic"
    exit "$status"
    ;;
agent)
    # The launcher calls: agent HOST command...
    host=$1
    shift
    on_host "${host##*.}" "$@"
    ;;
*)
    echo "hosts.sh: $mode?" >&2
    exit 2
    ;;
esac
