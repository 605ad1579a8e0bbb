# shellcheck shell=bash disable=SC2034
# Settings that everything shares, and the few words in which the tool speaks.
# Nothing here touches the machine.

# An instance is a whole cluster of its own: a number, from which every name and
# address that could collide on one machine is derived.
readonly INSTANCE=${EXECLET_CLUSTER_INSTANCE:-0}
[[ $INSTANCE =~ ^([0-9]|1[0-5])$ ]] || { echo "cluster: EXECLET_CLUSTER_INSTANCE must be 0 to 15, not '$INSTANCE'" >&2; exit 2; }
readonly CLUSTER=execlet$INSTANCE

default_dir=/var/lib/execlet-cluster
((INSTANCE == 0)) || default_dir+=-$INSTANCE
readonly DIR=${EXECLET_CLUSTER_DIR:-$default_dir}
readonly CACHE=${EXECLET_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/execlet}

readonly MAX_NODES=5
readonly NODE_NET=10.88.$INSTANCE          # /24: .1 control plane, .11 and up nodes, .254 host
readonly CONTROL_IP=$NODE_NET.1
readonly HOST_IP=$NODE_NET.254
readonly POD_CIDR=10.244.$((INSTANCE * 16)).0/20
readonly SERVICE_NET=10.$((96 + INSTANCE)).0    # /16
readonly SERVICE_CIDR=$SERVICE_NET.0/16
readonly API=https://$CONTROL_IP:6443

readonly BUSYBOX_IMAGE=execlet.test/busybox:1
readonly PAUSE_IMAGE=execlet.test/pause:1

readonly CONTROL_COMPONENTS=(etcd apiserver controller-manager scheduler)

node_ip() { echo "$NODE_NET.$((10 + ${1#n}))"; }
node_pod_net() { echo "10.244.$((INSTANCE * 16 + ${1#n}))"; }

say() { echo "cluster: $*" >&2; }

die() {
	local line
	for line in "$@"; do say "$line"; done
	exit 1
}

# Runs a step and says what it is and how long it took. The command's own output
# is shown only if it fails, so that a good run stays readable.
step() {
	local what=$1 name log began=$EPOCHREALTIME rc=0
	shift
	# Without a name from the start, so that a killed run leaves no file.
	name=$(mktemp)
	exec {log}<>"$name"
	rm "$name"
	printf 'cluster: %s... ' "$what" >&2
	# A subshell, so that an `exit` deep inside the step still gets its report.
	# It is not the condition of an `if`: that would switch `set -e` off inside.
	set +e
	(set -e; "$@") >&"$log" 2>&1
	rc=$?
	set -e
	if ((rc == 0)); then
		printf 'done in %s\n' "$(elapsed "$began")" >&2
		exec {log}>&-
		return 0
	fi
	printf 'FAILED after %s (exit code %d)\n' "$(elapsed "$began")" "$rc" >&2
	tail -n 40 "/proc/$$/fd/$log" | sed 's/^/  | /' >&2
	exit 1
}

# elapsed SINCE: time since an $EPOCHREALTIME, for people.
elapsed() {
	awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN {
		s = b - a
		if (s < 60) printf "%.1fs", s
		else printf "%dm%02ds", int(s / 60), int(s) % 60
	}'
}

# On a slow machine (an emulated one, say) every wait may take so many times as long.
readonly PATIENCE=${EXECLET_CLUSTER_PATIENCE:-1}
[[ $PATIENCE =~ ^[1-9][0-9]?$ ]] || { echo "cluster: EXECLET_CLUSTER_PATIENCE must be 1 to 99, not '$PATIENCE'" >&2; exit 2; }

# So may the time between two looks: each costs what the machine has least of.
readonly LOOK_EVERY=$((PATIENCE / 10)).$((PATIENCE % 10))

# wait_until SECONDS WHAT COMMAND...: polls the condition until it holds or the
# deadline has passed.
wait_until() {
	local deadline=$((SECONDS + $1 * PATIENCE)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		if ((SECONDS >= deadline)); then
			echo "gave up waiting: $what" >&2
			return 1
		fi
		sleep "$LOOK_EVERY"
	done
}

need_root() {
	[[ $EUID -eq 0 ]] || die "'cluster $1' makes namespaces, mounts and engines: run it as root (sudo -E $0 $1)"
}
