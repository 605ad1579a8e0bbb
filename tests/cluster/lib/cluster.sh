# shellcheck shell=bash
# The whole: how the places and their components become a cluster, how it is
# looked at, and how all of it goes.
#
# $DIR/cluster.env is written when a cluster is whole. A folder, a process or a
# link without it is what a killed run left.

is_up() { [[ -f $FACTS ]]; }

all_nodes() {
	local count=${NODE_COUNT:-} i
	[[ -n $count ]] || { is_up || die "no cluster is up: next: cluster up"; count=$(fact NODES); }
	for ((i = 1; i <= count; i++)); do echo "n$i"; done
}

places() { echo control; all_nodes; }

components_of() {
	if [[ $1 == control ]]; then echo "${CONTROL_COMPONENTS[@]}"; else echo "$(engine_components "$1") kubelet kube-proxy"; fi
}

kubectl() { "${BIN[kube]}/kubectl" --kubeconfig "$DIR/kubeconfig" "$@"; }

# shellcheck disable=SC2016 # expanded in the place
port_open() { inside "$1" bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$2" "$3"; }

# A component that has ended is not waited for: its last words are the error.
await_component() { # WHERE COMPONENT
	local seconds=$((180 * PATIENCE)) deadline
	deadline=$((SECONDS + seconds))
	until "ready_$2" "$1" >/dev/null 2>&1; do
		if not_running "$1" "$2"; then
			tail -n 15 "$(log_file "$1" "$2")" >&2
			die "$2 of $1 ended; all of its log: cluster logs $1 $2"
		fi
		((SECONDS < deadline)) || die "$2 of $1 is not ready after $seconds s; next: cluster logs $1 $2"
		sleep "$LOOK_EVERY"
	done
}

start_component() { # WHERE COMPONENT
	running "$1" "$2" || "launch_$2" "$1"
	await_component "$1" "$2"
}

create() {
	local began=$EPOCHREALTIME module node
	[[ -e /proc/sys/net/bridge ]] || modprobe br_netfilter || die "this kernel has no bridge netfilter: services need it"
	mkdir -p "$DIR"
	chmod 711 "$DIR"
	step "making namespaces and network for $NODE_COUNT nodes" make_places
	step "making certificates" make_pki
	step "starting the control plane and $NODE_COUNT engines" start_bases
	step "loading the base images" load_image "$(base_images)"
	step "starting kubelet and kube-proxy" start_nodes
	step "waiting for every node to be Ready" wait_until 120 "nodes to be Ready" all_ready
	cat >"$FACTS.new" <<ENV
NODES=$NODE_COUNT
KUBE=$KUBE
ENGINE=$ENGINE
ENV
	for node in $(all_nodes); do echo "ENGINE_$node=${ENGINE_OF[$node]}"; done >>"$FACTS.new"
	for module in "${MODULES[@]}"; do echo "BIN_$module=${BIN[$module]}"; done >>"$FACTS.new"
	mv "$FACTS.new" "$FACTS"
	say "up: $NODE_COUNT nodes in $(elapsed "$began"); next: eval \"\$($0 env)\""
}

# Tools of the tests, and no part of the cluster: the latest will do.
link_tools() {
	ln -sf "${BIN[interop]}/interop" "${BIN[cert-manager]}/cert-manager" "$DIR/bin/"
}

make_places() {
	local node
	make_place control "$CLUSTER-control"
	for node in $(all_nodes); do make_place "$node" "$node"; done
	make_network
}

start_bases() {
	local node component
	prepare_control
	write_kubeconfig admin "$DIR/kubeconfig"
	mkdir -p "$DIR/bin"
	ln -sf "${BIN[kube]}/kubectl" "${BIN[helm]}/helm" "$DIR/bin/"
	link_tools
	launch_etcd
	for node in $(all_nodes); do
		prepare_node "$node"
		"launch_$(engine_daemon "$node")" "$node"
	done
	# The other two would only fail at an API server that is not there yet.
	for component in "${CONTROL_COMPONENTS[@]}"; do start_component control "$component"; done
	for node in $(all_nodes); do await_component "$node" "$(engine_daemon "$node")"; done
}

# The first of each node, then the second of each, and so on.
start_nodes() {
	local node i components
	for i in 0 1 2 3; do
		local -A now=()
		for node in $(all_nodes); do
			read -ra components < <(components_of "$node")
			if ((i < ${#components[@]})); then now[$node]=${components[i]}; fi
		done
		for node in "${!now[@]}"; do running "$node" "${now[$node]}" || "launch_${now[$node]}" "$node"; done
		for node in "${!now[@]}"; do await_component "$node" "${now[$node]}"; done
	done
}

# Ready, and without the taint that a new node loses only a moment later: until
# then a DaemonSet does not count it.
ready_nodes() {
	kubectl get nodes --request-timeout $((5 * PATIENCE))s -o \
		jsonpath='{range .items[*]}{.metadata.name}{" "}{.status.conditions[?(@.type=="Ready")].status}{" "}{.spec.taints[*].key}{"\n"}{end}' |
		awk '$2 == "True" && !/node.kubernetes.io\/(not-ready|unreachable)/ { print $1 }'
}
all_ready() { [[ $(ready_nodes | sort) == $(all_nodes | sort) ]]; }

# What does not run, one "WHERE COMPONENT" a line; cut nodes as "NODE network".
ailing() {
	local where component
	for where in $(places); do
		for component in $(components_of "$where"); do
			running "$where" "$component" || echo "$where $component"
		done
		[[ $where == control ]] || ! is_cut "$where" || echo "$where network"
	done
}

holders_live() {
	local where
	for where in $(places); do running "$where" holder || return 1; done
}

# Brings back what is missing of a cluster that is up. State is kept.
repair() {
	local where component broken
	broken=$(ailing)
	if [[ -z $broken ]] && all_ready; then
		say "healthy: $(all_nodes | wc -l) nodes Ready, nothing to do"
		return
	fi
	while read -r where component; do
		[[ -n $where ]] || continue
		if [[ $component == network ]]; then
			step "healing the network of $where" heal_node "$where"
		else
			step "starting $component of $where" start_component "$where" "$component"
		fi
	done <<<"$broken"
	step "waiting for every node to be Ready" wait_until 120 "nodes to be Ready" all_ready
}

# Whether anything of a cluster is here, whole or not.
traces() {
	[[ -e $DIR || -e /sys/class/net/$LEG || -n $(cluster_pids) || -d $(tracking_root)/$CLUSTER ]]
}

remove_all() {
	kill_all_processes
	wait_until 20 "link $LEG to go" remove_leg
	rm -rf --one-file-system "$DIR"
}

refuse_foreign() {
	local owner
	if owner=$(foreign_owner); then
		die "instance $INSTANCE runs in $owner" \
			"next: set EXECLET_CLUSTER_DIR=$owner to use it, or EXECLET_CLUSTER_INSTANCE to a free number"
	fi
}

# Commands that make or unmake a cluster exclude each other.
lock_cluster() {
	mkdir -p "$CACHE"
	exec {CLUSTER_LOCK}>"$CACHE/$CLUSTER.lock"
	flock -n "$CLUSTER_LOCK" && return
	say "another up or down of $CLUSTER is at work, waiting for it"
	flock -w 900 "$CLUSTER_LOCK" || die "it still is after 15 min; what holds the lock: fuser -v $CACHE/$CLUSTER.lock"
}

# Folders that a node could not use: a socket's path has a limit, and what is under
# these is hidden by the node's own.
check_folders() {
	((${#DIR} <= 60)) || die "EXECLET_CLUSTER_DIR is too long for the path of a socket: $DIR"
	[[ $DIR == /* && $CACHE == /* ]] || die "EXECLET_CLUSTER_DIR and EXECLET_CACHE must be absolute: $DIR, $CACHE"
	case $DIR/ in /run/* | /var/run/* | /var/log/*) die "EXECLET_CLUSTER_DIR must not be under /run or /var/log: $DIR" ;; esac
	case $CACHE/ in /run/* | /var/run/* | /var/log/* | /var/lib/*) die "EXECLET_CACHE must not be under /run, /var/log or /var/lib: $CACHE" ;; esac
}

# refuse_another NODES: what is up stays as it is; whoever asks for something else is told before anything is built.
refuse_another() {
	local asked=$1 node have
	if [[ -n $asked && $asked != "$(fact NODES)" ]]; then
		die "a cluster of $(fact NODES) nodes is up, $asked were asked for" \
			"next: $0 down && $0 up --nodes $asked"
	fi
	have=$(fact KUBE)
	[[ ${have:-$USUAL_KUBE} == "$KUBE" ]] || die "the cluster runs Kubernetes ${have:-$USUAL_KUBE}, $KUBE was asked for" \
		"next: $0 down && KUBE=$KUBE $0 up"
	[[ $(fact ENGINE) == "$ENGINE" ]] || die "the cluster runs engine $(fact ENGINE), $ENGINE was asked for" \
		"next: $0 down && ENGINE=$ENGINE $0 up"
	for node in $(all_nodes); do
		have=$(fact "ENGINE_$node")
		[[ ${have:-docker} == "${ENGINE_OF[$node]}" ]] || die "$node runs ${have:-docker}, ${ENGINE_OF[$node]} was asked for" \
			"next: $0 down && ${node^^}=${ENGINE_OF[$node]} $0 up"
	done
}

up() {
	local asked=${NODES:-}
	while (($#)); do
		case $1 in
		--nodes) asked=${2:-}; shift 2 || die "--nodes wants a number" ;;
		--nodes=*) asked=${1#*=}; shift ;;
		*) die "up: unknown argument '$1'; next: cluster help" ;;
		esac
	done
	[[ ${asked:-2} =~ ^[1-$MAX_NODES]$ ]] || die "the number of nodes is 1 to $MAX_NODES, not '$asked'"
	kube_check
	engine_check
	check_folders
	need_root up
	ensure_go
	refuse_foreign
	lock_cluster
	if is_up && holders_live; then refuse_another "$asked"; fi
	ensure_packages
	build_all
	if is_up && holders_live; then
		[[ $(fact BIN_kube) == "${BIN[kube]}" ]] || say "note: the cluster runs other builds than these sources; down and up to change"
		link_tools
		locate_running
		repair
		return
	fi
	if traces; then
		step "clearing what an earlier run left" remove_all
	fi
	NODE_COUNT=${asked:-2}
	create
}

down() {
	need_root down
	refuse_foreign
	lock_cluster
	if traces; then
		step "taking the cluster down" remove_all
	else
		say "nothing is up"
	fi
}

status() {
	local where component pid healthy=0
	printf '%-8s %-19s %-9s %s\n' WHERE COMPONENT STATE PID
	for where in $(places); do
		for component in $(components_of "$where"); do
			if pid=$(live_pid "$where" "$component"); then
				printf '%-8s %-19s %-9s %s\n' "$where" "$component" running "$pid"
			else
				printf '%-8s %-19s %-9s %s\n' "$where" "$component" dead -
				healthy=1
			fi
		done
		if [[ $where != control ]] && is_cut "$where"; then
			printf '%-8s %-19s %-9s %s\n' "$where" network cut -
			healthy=1
		fi
	done
	echo
	kubectl get nodes -o wide --request-timeout 5s || healthy=1
	all_ready || healthy=1
	echo
	echo "memory: $(memory) MiB in $(cluster_pids | wc -l) processes; state: $DIR"
	return $healthy
}

# Proportional: what processes share is counted once.
memory() {
	local pid
	for pid in $(cluster_pids); do
		sed -n 's/^Pss:[ ]*\([0-9]*\).*/\1/p' "/proc/$pid/smaps_rollup" 2>/dev/null || true
	done | awk '{ sum += $1 } END { printf "%d", sum / 1024 }'
}
