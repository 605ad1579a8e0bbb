# shellcheck shell=bash disable=SC2034
# The Docker Engine of a node, with cri-dockerd.

# Its version. Unless one is asked for, it is that of the cluster which is up.
ENGINE=${ENGINE:-$([[ -f $FACTS ]] && fact ENGINE || true)}
readonly ENGINE=${ENGINE:-20.10}

docker_check() {
	case $ENGINE in
	20.10 | 29) ;;
	*) die "ENGINE=$ENGINE is not known; known: 20.10 (Debian's docker.io), 29 (a current one, built here)" ;;
	esac
}

# The containerd below it and the docker command are Debian's for both. runc 1.1 is too
# old for engine 29 (time namespaces).
docker_packages() {
	cat <<'LIST'
docker.io /usr/sbin/dockerd
containerd /usr/bin/containerd
runc /usr/sbin/runc
LIST
}

# Which modules under go/ it is built from.
docker_modules() {
	if [[ $ENGINE == 29 ]]; then printf '%s\n' dockerd runc; fi
}

readonly DOCKER_COMPONENTS=(dockerd cri-dockerd)

# Absolute paths: a machine may have a docker command of its own earlier on the
# PATH, with contexts and a version that are not the engine's.
readonly DOCKER=/usr/bin/docker

docker_daemon() {
	if [[ $ENGINE == 29 ]]; then echo "${BIN[dockerd]}/dockerd"; else echo /usr/sbin/dockerd; fi
}

docker_runc() {
	if [[ $ENGINE == 29 ]]; then echo "${BIN[runc]}/runc"; else echo /usr/sbin/runc; fi
}

# What only one of them knows. In a current engine, without the first, images would be containerd's,
# which Debian's containerd is too old for; the others let through what is routed to pods, as far as settings can.
docker_extras() {
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
docker_lets_pods_in() { # NODE
	local accept=(DOCKER-USER -o docker0 -j ACCEPT)
	[[ $ENGINE == 29 ]] || return 0
	inside "$1" iptables -N DOCKER-USER 2>/dev/null || true
	inside "$1" iptables -C "${accept[@]}" 2>/dev/null || inside "$1" iptables -A "${accept[@]}"
}

# The engine's settings for a node. They are a file and not flags, so that a test
# may change one (live-restore, say) and send dockerd a HUP or restart it.
# Without the userland proxy the engine sets hairpin mode on its bridge's ports, and
# only so does a pod reach itself through its own service.
docker_config() {
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
$(docker_extras)
  "log-driver": "json-file",
  "live-restore": false
}
JSON
}

# cri-dockerd asks for oomScoreAdj -998 for every sandbox. To go below zero takes
# CAP_SYS_RESOURCE, which a container or a locked-down machine does not have, and
# then runc dies without a usable message ("can't get final child's PID from
# pipe"). The engine also hands every capability to a privileged container, and runc
# refuses one that it has not. This runtime is the engine's runc, asked for neither
# where they are not to be had.
docker_runtime() {
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
exec $(docker_runc) "\$@"
SH
}

docker_prepare() { # NODE
	local lib=$DIR/$1/lib
	mkdir -p "$lib"/{docker,cri-dockerd}
	docker_config "$1" >"$lib/docker-daemon.json"
	docker_runtime >"$lib/execlet-clamp"
	chmod 755 "$lib/execlet-clamp"
}

docker_kubelet() { echo "containerRuntimeEndpoint: unix:///run/cri-dockerd.sock"; }

# The process ids in these files are of a dead engine and of its containerd, which
# dies with it. As long as nobody has collected them, the engine takes them for
# living: it refuses to start, or waits for that containerd.
launch_dockerd() {
	rm -f "$DIR/$1/run/docker.pid" "$DIR/$1/run/docker/containerd/containerd.pid"
	docker_lets_pods_in "$1"
	spawn "$1" dockerd "$(docker_daemon)" --config-file /var/lib/docker-daemon.json
}
ready_dockerd() { docker_on "$1" version; }

launch_cri-dockerd() {
	rm -f "$DIR/$1/run/cri-dockerd.sock" # of a killed one: its socket means ready
	spawn "$1" cri-dockerd "${BIN[cri-dockerd]}/cri-dockerd" \
		--docker-endpoint unix:///run/docker.sock \
		--container-runtime-endpoint unix:///run/cri-dockerd.sock \
		--cri-dockerd-root-directory /var/lib/cri-dockerd \
		--network-plugin= --pod-infra-container-image "$PAUSE_IMAGE"
}
ready_cri-dockerd() { test -S "$DIR/$1/run/cri-dockerd.sock"; }

# The socket's host path is the same file: /run in the node is a folder of ours.
docker_socket() { echo "$DIR/$1/run/docker.sock"; }

docker_on() { # NODE ARGUMENTS...
	local node=$1
	shift
	env -u DOCKER_CONTEXT -u DOCKER_TLS_VERIFY -u DOCKER_API_VERSION "$DOCKER" -H "unix://$(docker_socket "$node")" "$@"
}

docker_load() { docker_on "$1" load --quiet --input "$2"; }
docker_image() { docker_on "$1" image inspect --format '{{.Id}}' "$2"; }

docker_containers() { # NODE LABEL=VALUE...
	local node=$1 label filters=()
	shift
	for label in "$@"; do filters+=(--filter "label=$label"); done
	docker_on "$node" ps --quiet --no-trunc "${filters[@]}"
}
docker_pid() { docker_on "$1" inspect --format '{{.State.Pid}}' "$2"; }
docker_processes() { docker_on "$1" top "$2" -o pid,args | tail -n +2; }
docker_kill() { docker_on "$1" kill "$2"; }
docker_pause() { docker_on "$1" pause "$2"; }
docker_resume() { docker_on "$1" unpause "$2"; }
docker_exec() { docker_on "$1" exec "${@:2}"; }
docker_version() { docker_on "$1" version --format 'Docker Engine {{.Server.Version}} (API {{.Server.APIVersion}})'; }
