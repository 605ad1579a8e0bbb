# shellcheck shell=bash disable=SC2034
# The Docker Engine: the only place that knows which one a node runs.
# Another engine is another branch in each of these functions.

readonly ENGINE=${ENGINE:-20.10}

engine_check() {
	case $ENGINE in
	20.10) ;;
	*) die "ENGINE=$ENGINE is not known; known: 20.10 (Debian's docker.io)" ;;
	esac
}

engine_packages() {
	cat <<'LIST'
docker.io /usr/sbin/dockerd
containerd /usr/bin/containerd
runc /usr/sbin/runc
LIST
}

# Absolute paths: a machine may have a docker command of its own earlier on the
# PATH, with contexts and a version that are not the engine's.
readonly DOCKERD=/usr/sbin/dockerd
readonly DOCKER=/usr/bin/docker
readonly RUNC=/usr/sbin/runc

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
  "oom-score-adjust": 0,
  "runtimes": {"clamp": {"path": "/var/lib/execlet-clamp"}},
  "default-runtime": "$(may_lower_oom_score && echo runc || echo clamp)",
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
# refuses one that it has not. This runtime is runc, asked for neither.
engine_runtime() {
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
if [ -f "\$spec" ]; then
	sed -i -e 's/"oomScoreAdj":-[0-9]*/"oomScoreAdj":0/' \\
		-e 's/"CAP_SYS_RESOURCE",//g; s/,\{0,1\}"CAP_SYS_RESOURCE"//g' "\$spec"
fi
exec $RUNC "\$@"
SH
}
