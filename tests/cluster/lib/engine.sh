# shellcheck shell=bash disable=SC2034
# Which engine a node runs. What that means is in a file for each of them: another
# engine is another file with the same functions.

readonly FACTS=$DIR/cluster.env
fact() { sed -n "s/^$1=//p" "$FACTS"; }

# What a node runs unless N1 to N5 say something else, or a cluster is up.
declare -rA USUAL_ENGINE=([n2]=containerd)

declare -A ENGINE_OF=() # node -> docker or containerd

choose_engines() {
	local i asked
	if [[ -f $FACTS ]]; then engines_of_running; fi
	for ((i = 1; i <= MAX_NODES; i++)); do
		asked=N$i
		ENGINE_OF[n$i]=${!asked:-${ENGINE_OF[n$i]:-${USUAL_ENGINE[n$i]:-docker}}}
	done
}

engines_of_running() {
	local i found
	for ((i = 1; i <= MAX_NODES; i++)); do
		found=$(fact "ENGINE_n$i")
		ENGINE_OF[n$i]=${found:-docker}
	done
}

choose_engines

# engine FUNCTION NODE...: that of the node's engine.
engine() { "${ENGINE_OF[$2]}_$1" "${@:2}"; }

engine_check() {
	local node
	for node in "${!ENGINE_OF[@]}"; do
		case ${ENGINE_OF[$node]} in
		docker | containerd) ;;
		*) die "${node^^}=${ENGINE_OF[$node]}: this engine is not known; known: docker, containerd" ;;
		esac
	done
	docker_check
}

# Whether a node of the cluster is to run it, or would if the cluster had more of them.
is_used() { [[ " ${ENGINE_OF[*]} " == *" $1 "* ]]; }

# A Docker Engine is there always: it builds images.
engine_modules() {
	{
		docker_modules
		if is_used containerd; then containerd_modules; fi
	} | sort -u
}

# It takes libseccomp to build a runc that knows the engines' seccomp profiles.
engine_packages() {
	docker_packages
	if is_used containerd; then containerd_packages; fi
	[[ $(engine_modules) == *runc* ]] || return 0
	cat <<'LIST'
libseccomp-dev /usr/include/seccomp.h
pkg-config /usr/bin/pkg-config
gcc /usr/bin/gcc
libc6-dev /usr/include/stdio.h
LIST
}

# Its components, in the order in which they start; the first is the engine proper.
engine_components() { # NODE
	local -n components=${ENGINE_OF[$1]^^}_COMPONENTS
	echo "${components[@]}"
}

engine_daemon() { # NODE
	local components
	read -ra components < <(engine_components "$1")
	echo "${components[0]}"
}

# Whether we have CAP_SYS_RESOURCE, number 24.
may_lower_oom_score() {
	local capabilities
	capabilities=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)
	(((0x$capabilities >> 24) & 1))
}

load_image() { # FILE [NODE]...: into the engines of these nodes, or of all
	local file=$1 node nodes=("${@:2}")
	((${#nodes[@]})) || mapfile -t nodes < <(all_nodes)
	for node in "${nodes[@]}"; do engine load "$node" "$file"; done
}
