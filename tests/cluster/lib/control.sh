# shellcheck shell=bash
# The control plane: one of each, in the place `control`.

prepare_control() {
	local pki=$DIR/control/lib/kubernetes/pki
	mkdir -p "$pki" "$DIR/control/lib/etcd"
	chmod 700 "$DIR/control/lib/etcd"
	cp "$PKI"/{ca,front-proxy-ca,apiserver,apiserver-kubelet-client,front-proxy-client}.* "$PKI"/sa.* "$pki/"
	write_kubeconfig controller-manager "$DIR/control/lib/kubernetes/controller-manager.kubeconfig"
	write_kubeconfig scheduler "$DIR/control/lib/kubernetes/scheduler.kubeconfig"
}

# Without TLS, because 127.0.0.1 is the control plane's own loopback. Without
# fsync, because a cluster is never carried over a crash of the machine; a killed
# etcd loses nothing by it.
launch_etcd() {
	spawn control etcd "${BIN[etcd]}/etcd" \
		--name control --data-dir /var/lib/etcd --unsafe-no-fsync \
		--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
		--listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
		--initial-cluster control=http://127.0.0.1:2380 --logger zap --log-level warn
}
ready_etcd() { port_open control 127.0.0.1 2379; }

# The requestheader flags and the proxy client are what aggregated APIs need;
# aggregator routing goes to the pods themselves, since no kube-proxy runs here.
launch_apiserver() {
	local pki=/var/lib/kubernetes/pki
	spawn control apiserver "${BIN[kube]}/kube-apiserver" \
		--advertise-address "$CONTROL_IP" --bind-address 0.0.0.0 --secure-port 6443 \
		--etcd-servers http://127.0.0.1:2379 \
		--service-cluster-ip-range "$SERVICE_CIDR" \
		--allow-privileged=true \
		--authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
		--client-ca-file $pki/ca.crt \
		--tls-cert-file $pki/apiserver.crt --tls-private-key-file $pki/apiserver.key \
		--cert-dir /run/kubernetes \
		--service-account-issuer https://kubernetes.default.svc.cluster.local \
		--service-account-key-file $pki/sa.pub --service-account-signing-key-file $pki/sa.key \
		--kubelet-certificate-authority $pki/ca.crt \
		--kubelet-client-certificate $pki/apiserver-kubelet-client.crt \
		--kubelet-client-key $pki/apiserver-kubelet-client.key \
		--kubelet-preferred-address-types InternalIP \
		--requestheader-client-ca-file $pki/front-proxy-ca.crt \
		--requestheader-allowed-names front-proxy-client \
		--requestheader-username-headers X-Remote-User \
		--requestheader-group-headers X-Remote-Group \
		--requestheader-extra-headers-prefix X-Remote-Extra- \
		--proxy-client-cert-file $pki/front-proxy-client.crt \
		--proxy-client-key-file $pki/front-proxy-client.key \
		--enable-aggregator-routing=true
}
ready_apiserver() { port_open control 127.0.0.1 6443 && kubectl get --raw /readyz --request-timeout $((2 * PATIENCE))s; }

# No leader election: there is one of each, and a restart need not wait for a lease.
# A node that is gone is noticed in 20 s instead of 50 s: tests wait for it.
launch_controller-manager() {
	local config=/var/lib/kubernetes/controller-manager.kubeconfig pki=/var/lib/kubernetes/pki
	spawn control controller-manager "${BIN[kube]}/kube-controller-manager" \
		--kubeconfig $config --authentication-kubeconfig $config --authorization-kubeconfig $config \
		--bind-address 127.0.0.1 --leader-elect=false --use-service-account-credentials=true \
		--controllers '*,bootstrap-signer-controller,token-cleaner-controller' \
		--service-account-private-key-file $pki/sa.key --root-ca-file $pki/ca.crt \
		--cluster-signing-cert-file $pki/ca.crt --cluster-signing-key-file $pki/ca.key \
		--requestheader-client-ca-file $pki/front-proxy-ca.crt \
		--allocate-node-cidrs=false --cluster-cidr "$POD_CIDR" \
		--flex-volume-plugin-dir /var/lib/kubernetes/volumeplugins \
		--node-monitor-period 2s --node-monitor-grace-period $((20 * PATIENCE))s
}
ready_controller-manager() { port_open control 127.0.0.1 10257; }

launch_scheduler() {
	local config=/var/lib/kubernetes/scheduler.kubeconfig
	spawn control scheduler "${BIN[kube]}/kube-scheduler" \
		--kubeconfig $config --authentication-kubeconfig $config --authorization-kubeconfig $config \
		--bind-address 127.0.0.1 --leader-elect=false
}
ready_scheduler() { port_open control 127.0.0.1 10259; }
