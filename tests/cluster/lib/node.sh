# shellcheck shell=bash
# A node: engine, CRI, kubelet and service proxy, in the place that has its name.

# Files are written once, when the node is made, and not when a component starts:
# what a test changes in them survives a restart.
prepare_node() {
	local node=$1 lib=$DIR/$1/lib
	mkdir -p "$lib"/{docker,cri-dockerd,kubelet/pki,kube-proxy}
	engine_config "$node" >"$lib/docker-daemon.json"
	engine_runtime >"$lib/execlet-clamp"
	chmod 755 "$lib/execlet-clamp"
	cp "$PKI/ca.crt" "$PKI/$node.crt" "$PKI/$node.key" "$lib/kubelet/pki/"
	write_kubeconfig "$node" "$lib/kubelet/kubeconfig"
	write_kubeconfig kube-proxy "$lib/kube-proxy/kubeconfig"
	kubelet_config "$node" >"$lib/kubelet/config.yaml"
	proxy_config "$node" >"$lib/kube-proxy/config.yaml"
}

# Cgroups: the kubelet makes none of its own (it may not on every machine that
# tests run on), containers go where the engine puts them.
# ExtendWebSocketsToKubelet: with it, this kubelet and this cri-dockerd disagree
# about TLS on the streaming connection ("HTTP response to HTTPS client").
# Image collection and eviction: the disk is the machine's, and how full it is says
# nothing about the cluster; a collected image could not be pulled again.
# crashLoopBackOff: tests kill containers by the hundred, and must not wait minutes for each.
# oomScoreAdj: see the engine's runtime.
kubelet_config() {
	cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $(node_ip "$1")
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: /var/lib/kubelet/pki/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: /var/lib/kubelet/pki/$1.crt
tlsPrivateKeyFile: /var/lib/kubelet/pki/$1.key
containerRuntimeEndpoint: unix:///run/cri-dockerd.sock
volumePluginDir: /var/lib/kubelet/volumeplugins
resolvConf: ""
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
oomScoreAdj: 0
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
nodeStatusUpdateFrequency: 4s
nodeLeaseDurationSeconds: 16
shutdownGracePeriod: 0s
featureGates: {ExtendWebSocketsToKubelet: false, KubeletCrashLoopBackOffMax: true}
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
YAML
}

# Conntrack limits are the kernel's for all namespaces: not ours to set.
proxy_config() {
	cat <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: $1
clusterCIDR: $POD_CIDR
clientConnection: {kubeconfig: /var/lib/kube-proxy/kubeconfig}
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
}

# The process ids in these files are of a dead engine and of its containerd, which
# dies with it. As long as nobody has collected them, the engine takes them for
# living: it refuses to start, or waits for that containerd.
launch_dockerd() {
	rm -f "$DIR/$1/run/docker.pid" "$DIR/$1/run/docker/containerd/containerd.pid"
	engine_lets_pods_in "$1"
	spawn "$1" dockerd "$(engine_dockerd)" --config-file /var/lib/docker-daemon.json
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

# A kubelet that finds no CRI socket exits, hence the order of components.
launch_kubelet() {
	spawn "$1" kubelet "${BIN[kube]}/kubelet" \
		--config /var/lib/kubelet/config.yaml --kubeconfig /var/lib/kubelet/kubeconfig \
		--hostname-override "$1" --node-ip "$(node_ip "$1")" --v 2
}
ready_kubelet() { port_open "$1" 127.0.0.1 10248; }

launch_kube-proxy() {
	spawn "$1" kube-proxy "${BIN[kube]}/kube-proxy" --config /var/lib/kube-proxy/config.yaml
}
ready_kube-proxy() { port_open "$1" 127.0.0.1 10256; }

# The socket's host path is the same file: /run in the node is a folder of ours.
node_socket() { echo "$DIR/$1/run/docker.sock"; }

docker_on() {
	local node=$1
	shift
	env -u DOCKER_CONTEXT -u DOCKER_TLS_VERIFY -u DOCKER_API_VERSION "$DOCKER" -H "unix://$(node_socket "$node")" "$@"
}

load_image() { # FILE: into every node's engine
	local node
	for node in $(all_nodes); do
		docker_on "$node" load --quiet --input "$1"
	done
}
