# shellcheck shell=bash disable=SC2034
# The Docker Engine: the only place that knows which one a node runs.
# Another engine is another branch in each of these functions.

# Unless one is asked for, it is that of the cluster which is up.
readonly FACTS=$DIR/cluster.env
fact() { sed -n "s/^$1=//p" "$FACTS"; }

ENGINE=${ENGINE:-$([[ -f $FACTS ]] && fact ENGINE || true)}
readonly ENGINE=${ENGINE:-20.10}

engine_check() {
	case $ENGINE in
	20.10 | 29) ;;
	*) die "ENGINE=$ENGINE is not known; known: 20.10 (Debian's docker.io), 29 (a current one, built here)" ;;
	esac
}

# containerd and the docker command are Debian's for both. runc 1.1 is too old for
# engine 29 (time namespaces), and it takes libseccomp to build one that knows the
# engine's seccomp profile.
engine_packages() {
	cat <<'LIST'
docker.io /usr/sbin/dockerd
containerd /usr/bin/containerd
runc /usr/sbin/runc
LIST
	[[ $ENGINE == 29 ]] && cat <<'LIST'
libseccomp-dev /usr/include/seccomp.h
pkg-config /usr/bin/pkg-config
gcc /usr/bin/gcc
libc6-dev /usr/include/stdio.h
LIST
	return 0
}

# Which modules under go/ it is built from.
engine_modules() {
	if [[ $ENGINE == 29 ]]; then printf '%s\n' dockerd runc; fi
}

engine_recipe() {
	case $1 in
	dockerd) echo "github.com/moby/moby/v2/cmd/dockerd" ;;
	runc) echo "github.com/opencontainers/runc" ;;
	esac
}

# Absolute paths: a machine may have a docker command of its own earlier on the
# PATH, with contexts and a version that are not the engine's.
readonly DOCKER=/usr/bin/docker

engine_dockerd() {
	if [[ $ENGINE == 29 ]]; then echo "${BIN[dockerd]}/dockerd"; else echo /usr/sbin/dockerd; fi
}

engine_runc() {
	if [[ $ENGINE == 29 ]]; then echo "${BIN[runc]}/runc"; else echo /usr/sbin/runc; fi
}

# What only one of them knows. In a current engine, without the first, images would be containerd's,
# which Debian's containerd is too old for; the others let through what is routed to pods, as far as settings can.
engine_extras() {
	if [[ $ENGINE != 29 ]]; then
		echo '  "oom-score-adjust": 0,'
		return
	fi
	cat <<'JSON'
  "features": {"containerd-snapshotter": false},
  "allow-direct-routing": true,
  "ip-forward-no-drop": true,
JSON
}

# Since version 28 an engine, whatever its settings, drops what comes to a container from elsewhere and is not for a
# port that it publishes: no pod would reach one of another node, nor the API server any pod. The engine asks this
# chain first, and leaves it as it finds it, also when it starts again.
engine_lets_pods_in() { # NODE
	local accept=(DOCKER-USER -o docker0 -j ACCEPT)
	[[ $ENGINE == 29 ]] || return 0
	inside "$1" iptables -N DOCKER-USER 2>/dev/null || true
	inside "$1" iptables -C "${accept[@]}" 2>/dev/null || inside "$1" iptables -A "${accept[@]}"
}

# The engine's settings for a node. They are a file and not flags, so that a test
# may change one (live-restore, say) and send dockerd a HUP or restart it.
# Without the userland proxy the engine sets hairpin mode on its bridge's ports, and
# only so does a pod reach itself through its own service.
engine_config() {
	local node=$1
	cat <<JSON
{
  "hosts": ["unix:///run/docker.sock"],
  "data-root": "/var/lib/docker",
  "exec-root": "/run/docker",
  "pidfile": "/run/docker.pid",
  "deprecated-key-path": "/var/lib/docker-key.json",
  "storage-driver": "overlay2",
  "exec-opts": ["native.cgroupdriver=cgroupfs"],
  "cgroup-parent": "/$CLUSTER/$node",
  "bip": "$(node_pod_net "$node").1/24",
  "ip-masq": false,
  "userland-proxy": false,
  "runtimes": {"clamp": {"path": "/var/lib/execlet-clamp"}},
  "default-runtime": "$([[ $ENGINE == 20.10 ]] && may_lower_oom_score && echo runc || echo clamp)",
$(engine_extras)
  "log-driver": "json-file",
  "live-restore": false
}
JSON
}

# Whether we have CAP_SYS_RESOURCE, number 24.
may_lower_oom_score() {
	local capabilities
	capabilities=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)
	(((0x$capabilities >> 24) & 1))
}

# cri-dockerd asks for oomScoreAdj -998 for every sandbox. To go below zero takes
# CAP_SYS_RESOURCE, which a container or a locked-down machine does not have, and
# then runc dies without a usable message ("can't get final child's PID from
# pipe"). The engine also hands every capability to a privileged container, and runc
# refuses one that it has not. This runtime is the engine's runc, asked for neither
# where they are not to be had.
engine_runtime() {
	local clamp=1
	if may_lower_oom_score; then clamp=; fi
	cat <<SH
#!/bin/sh
# Of \`create --bundle FOLDER\` and \`exec --process FILE\`: the file that says what to run.
spec=
option=
for word in "\$@"; do
	case \$option in
	--bundle) spec=\$word/config.json ;;
	--process) spec=\$word ;;
	esac
	option=\$word
done
if [ -n "$clamp" ] && [ -f "\$spec" ]; then
	sed -i -e 's/"oomScoreAdj":-[0-9]*/"oomScoreAdj":0/' \\
		-e 's/"CAP_SYS_RESOURCE",//g; s/,\{0,1\}"CAP_SYS_RESOURCE"//g' "\$spec"
fi
exec $(engine_runc) "\$@"
SH
}
