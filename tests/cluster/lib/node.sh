# shellcheck shell=bash
# A node: engine, kubelet and service proxy, in the place that has its name.

# Files are written once, when the node is made, and not when a component starts:
# what a test changes in them survives a restart.
prepare_node() {
	local node=$1 lib=$DIR/$1/lib
	mkdir -p "$lib"/{kubelet/pki,kube-proxy}
	engine prepare "$node"
	cp "$PKI/ca.crt" "$PKI/$node.crt" "$PKI/$node.key" "$lib/kubelet/pki/"
	write_kubeconfig "$node" "$lib/kubelet/kubeconfig"
	write_kubeconfig kube-proxy "$lib/kube-proxy/kubeconfig"
	kubelet_config "$node" >"$lib/kubelet/config.yaml"
	proxy_config "$node" >"$lib/kube-proxy/config.yaml"
}

# Cgroups: the kubelet makes none of its own (it may not on every machine that
# tests run on), containers go where the engine puts them.
# What only one engine needs is the engine's to add.
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
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
$(kubelet_gates "${ENGINE_OF[$1]}")
$(engine kubelet "$1")
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

# A kubelet that finds no CRI socket exits: the engine's components come first.
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
