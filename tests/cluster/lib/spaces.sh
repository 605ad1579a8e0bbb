# shellcheck shell=bash
# The places: `control` and one a node, each with its own network, mounts and host
# name. A place lives as long as the processes in it; a holder process that does
# nothing else keeps it while daemons come and go. Nothing is pinned by a file or
# a mount, so nothing can be left behind.
#
#   host                      control                    n1
#   execlet0 10.88.0.254 ---- host \                     eth0 10.88.0.11
#                                   br0 10.88.0.1 -- n1 -/     docker0 10.244.1.1
#                                        \ -- n2 -- (n2's eth0)

readonly LEG=$CLUSTER # the only link that the host keeps

# What runs in a new place before it becomes the holder. The folders that are bound
# over the host's are the state that a machine keeps to itself: without them two
# nodes would share sockets, pod logs, and every hostPath under /var/lib.
# shellcheck disable=SC2016 # expanded in the place, not here
readonly HOLDER_SCRIPT='
set -e
mount --make-rprivate /
mount --bind "$1/run" /run
mount --bind "$1/log" /var/log
mount --bind "$1/lib" /var/lib
# What an agent keeps of the output of commands has to be in memory, as /run of a real machine is.
mkdir -p /run/execlet
mount -t tmpfs -o mode=0700,size=256m execlet /run/execlet
mount --make-rshared /
echo "$2" >/proc/sys/kernel/hostname
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
# A service reached from a pod on the same bridge: the answer must come back
# through the address translation, not straight over the bridge.
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
echo ready >/run/place
exec "$3"
'

make_place() { # WHERE HOSTNAME
	local where=$1 host=$2
	mkdir -p "$DIR/$where"/{run,log,lib,pids}
	rm -f "$DIR/$where/run/place"
	cp "${BIN[pause]}/pause" "$DIR/$where/lib/execlet-holder"
	spawn "$where" holder unshare --net --mount --uts --propagation private \
		bash -c "$HOLDER_SCRIPT" holder "$DIR/$where" "$host" /var/lib/execlet-holder
	wait_until 10 "the namespaces of $where" test -s "$DIR/$where/run/place"
	running "$where" holder
}

# inside WHERE COMMAND...
inside() {
	local holder
	holder=$(live_pid "$1" holder) || die "$1 does not run: next: cluster up"
	shift
	nsenter --target "$holder" --net --mount --uts -- "$@"
}

make_network() {
	local node other control
	control=$(live_pid control holder)
	inside control ip link add br0 type bridge
	inside control ip addr add "$CONTROL_IP/24" dev br0
	inside control ip link set br0 up

	ip link add "$LEG" type veth peer name host netns "$control"
	ip addr add "$HOST_IP/24" dev "$LEG"
	ip link set "$LEG" up
	inside control ip link set host master br0 up

	for node in $(all_nodes); do
		inside control ip link add "$node" type veth peer name eth0 netns "$(live_pid "$node" holder)"
		inside control ip link set "$node" master br0 up
		inside "$node" ip addr add "$(node_ip "$node")/24" dev eth0
		inside "$node" ip link set eth0 up
		# kube-proxy rewrites service addresses after the kernel has looked for a
		# route, so there must be one, wherever it points.
		inside "$node" ip route add "$SERVICE_CIDR" dev eth0
	done

	# The pod network: a route to each node's pods from everywhere else. There is
	# no default route anywhere: nothing in the cluster reaches further.
	for node in $(all_nodes); do
		ip route add "$(node_pod_net "$node").0/24" via "$(node_ip "$node")" dev "$LEG"
		inside control ip route add "$(node_pod_net "$node").0/24" via "$(node_ip "$node")"
		for other in $(all_nodes); do
			[[ $other == "$node" ]] || inside "$other" ip route add "$(node_pod_net "$node").0/24" via "$(node_ip "$node")"
		done
	done
	ip route add "$SERVICE_CIDR" via "$(node_ip n1)" dev "$LEG"
}

cut_node() { inside control ip link set "$1" down; }
heal_node() { inside control ip link set "$1" up; }
is_cut() { [[ $(inside control ip -o link show "$1") != *"state UP"* ]]; }

# A network namespace is taken down by the kernel some time after its last process,
# and the host's leg with it. A leg whose other end is gone is removed at once.
remove_leg() {
	[[ -e /sys/class/net/$LEG ]] || return 0
	ip link del "$LEG" 2>/dev/null || true
	[[ ! -e /sys/class/net/$LEG ]]
}
