# shellcheck shell=bash disable=SC2034
# containerd on a node: the kubelet talks to its CRI, and CNI plugins make the pods' network.

readonly CONTAINERD_COMPONENTS=(containerd)
# Debian's.
readonly CNI_PLUGINS=/usr/lib/cni

containerd_packages() {
	cat <<LIST
containernetworking-plugins $CNI_PLUGINS/bridge
procps /usr/bin/ps /bin/ps
LIST
}

containerd_modules() { printf '%s\n' containerd runc; }

# Not one of its folders is shared with the machine, or with another node: /etc and /opt would be.
# The shim is named by its path: Debian's may be on the PATH, of another version.
containerd_config() {
	cat <<TOML
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "$PAUSE_IMAGE"

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = $(may_lower_oom_score && echo false || echo true)
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["$CNI_PLUGINS"]
    conf_dir = "/var/lib/cni/net.d"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    runtime_path = "${BIN[containerd]}/containerd-shim-runc-v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "/var/lib/execlet-runc"
TOML
}

# A kubelet that makes no cgroups names none, and then containerd puts containers into
# /k8s.io, where nobody knows whose they are. This runtime is runc, told otherwise.
containerd_runtime() { # NODE
	cat <<SH
#!/bin/sh
bundle=
option=
for word in "\$@"; do
	[ "\$option" != --bundle ] || bundle=\$word
	option=\$word
done
if [ -n "\$bundle" ]; then
	sed -i 's|"cgroupsPath":"/k8s.io/|"cgroupsPath":"/$CLUSTER/$1/|' "\$bundle/config.json"
fi
exec ${BIN[runc]}/runc "\$@"
SH
}

# The pods of the node are behind one bridge, as docker0 is for the other engine. In
# hairpin mode a pod reaches itself through its own service.
containerd_network() { # NODE
	cat <<JSON
{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "$(node_pod_net "$1").0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
JSON
}

containerd_prepare() { # NODE
	local lib=$DIR/$1/lib
	mkdir -p "$lib"/{containerd,cni/net.d}
	containerd_config >"$lib/containerd.toml"
	containerd_runtime "$1" >"$lib/execlet-runc"
	chmod 755 "$lib/execlet-runc"
	containerd_network "$1" >"$lib/cni/net.d/pods.conflist"
}

containerd_kubelet() { echo "containerRuntimeEndpoint: unix:///run/containerd/containerd.sock"; }

launch_containerd() {
	spawn "$1" containerd "${BIN[containerd]}/containerd" --config /var/lib/containerd.toml
}
# Its own service answers sooner than CRI's plugin, without which a kubelet ends.
ready_containerd() { [[ $(ctr_on "$1" plugins ls 'id==cri,type==io.containerd.grpc.v1' | awk 'NR == 2 { print $NF }') == ok ]]; }

containerd_socket() { echo "$DIR/$1/run/containerd/containerd.sock"; }

# In the node: the client and the daemon meet at pipes below /run.
ctr_on() { # NODE ARGUMENTS...
	CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1 inside "$1" "${BIN[containerd]}/ctr" --namespace k8s.io "${@:2}"
}

# Images of which the kubelet knows are in this namespace. By standard input: the node has
# folders of its own where the file may be.
containerd_load() { ctr_on "$1" images import - <"$2"; }

# As an engine that builds images says it: the digest of the image's configuration.
containerd_image() { # NODE NAME
	local name=$2 manifest
	[[ $name == *.*/* ]] || name=docker.io/library/$name
	manifest=$(ctr_on "$1" images ls "name==$name" | awk 'NR == 2 { print $3 }')
	[[ -n $manifest ]] || die "no image $2 on $1"
	ctr_on "$1" content get "$manifest" | tr -d ' \n\t' | sed 's/.*"config":{[^}]*"digest":"\([^"]*\)".*/\1/'
	echo
}

containerd_containers() { # NODE LABEL=VALUE...
	local node=$1 label filter='labels."io.cri-containerd.kind"==container' tasks found
	shift
	for label in "$@"; do filter+=",labels.\"${label%%=*}\"==\"${label#*=}\""; done
	found=$(ctr_on "$node" containers ls --quiet "$filter")
	[[ -n $found ]] || return 0
	tasks=$(ctr_on "$node" task ls)
	awk 'NR == FNR { runs[$1] = $3 == "RUNNING" || $3 == "PAUSED"; next } runs[$1]' <(echo "$tasks") <(echo "$found")
}

containerd_pid() { # NODE ID
	ctr_on "$1" task ls | awk -v id="$2" '$1 == id { print $2; found = 1 } END { exit !found }' || die "no container $2 runs on $1"
}

containerd_processes() { # NODE ID
	local pids
	pids=$(ctr_on "$1" task ps "$2" | awk 'NR > 1 { print $1 }') || return
	# One that has ended meanwhile is no error.
	[[ -z $pids ]] || ps -o pid=,args= -p "$(paste -sd , <<<"$pids")" || true
}

containerd_kill() { ctr_on "$1" task kill --signal SIGKILL "$2"; }
containerd_pause() { ctr_on "$1" task pause "$2"; }
containerd_resume() { ctr_on "$1" task resume "$2"; }
containerd_exec() { ctr_on "$1" task exec --exec-id "by-hand-$BASHPID-$RANDOM" "${@:2}"; }
containerd_version() { ctr_on "$1" version | awk '/^Server/ { server = 1 } server && /Version/ { print "containerd", $2 }'; }
