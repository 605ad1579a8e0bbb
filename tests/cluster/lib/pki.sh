# shellcheck shell=bash
# Certificates and kubeconfigs. Two authorities: one for the cluster, one only for
# the front proxy, so that no client certificate can pose as the aggregator.

readonly PKI=$DIR/pki

make_authority() { # NAME SUBJECT
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
		-subj "$2" -keyout "$PKI/$1.key" -out "$PKI/$1.crt" \
		-addext 'keyUsage=critical,keyCertSign,cRLSign,digitalSignature'
}

# make_cert AUTHORITY NAME SUBJECT [SUBJECT-ALT-NAMES]: good for both ends of TLS.
make_cert() {
	local authority=$1 name=$2 subject=$3 alt=${4:-}
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
		-subj "$subject" -keyout "$PKI/$name.key" -out "$PKI/$name.csr"
	openssl x509 -req -in "$PKI/$name.csr" -days 3650 -out "$PKI/$name.crt" \
		-CA "$PKI/$authority.crt" -CAkey "$PKI/$authority.key" \
		-set_serial "0x$(openssl rand -hex 8)" -extfile <(
			echo 'basicConstraints=critical,CA:FALSE'
			echo 'keyUsage=critical,digitalSignature'
			echo 'extendedKeyUsage=serverAuth,clientAuth'
			[[ -z $alt ]] || echo "subjectAltName=$alt"
		)
	rm "$PKI/$name.csr"
}

make_pki() {
	local node
	umask 077
	mkdir -p "$PKI"
	make_authority ca "/CN=$CLUSTER"
	make_authority front-proxy-ca "/CN=$CLUSTER-front-proxy"
	make_cert ca apiserver /CN=kube-apiserver \
		"IP:$CONTROL_IP,IP:$SERVICE_NET.1,IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
	make_cert ca apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
	make_cert ca admin /O=system:masters/CN=kubernetes-admin
	make_cert ca controller-manager /CN=system:kube-controller-manager
	make_cert ca scheduler /CN=system:kube-scheduler
	make_cert ca kube-proxy /CN=system:kube-proxy
	make_cert front-proxy-ca front-proxy-client /CN=front-proxy-client
	openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$PKI/sa.key"
	openssl pkey -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub"
	for node in $(all_nodes); do
		# The Node authorizer and NodeRestriction know a kubelet by this name.
		make_cert ca "$node" "/O=system:nodes/CN=system:node:$node" "IP:$(node_ip "$node"),DNS:$node"
	done
}

# write_kubeconfig CERTIFICATE FILE: with the certificates inside, so that the file
# is good wherever it is copied or mounted to.
write_kubeconfig() {
	local cert=$1 file=$2
	(
		umask 077
		cat >"$file.new" <<YAML
apiVersion: v1
kind: Config
clusters:
- name: $CLUSTER
  cluster:
    server: $API
    certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")
users:
- name: $cert
  user:
    client-certificate-data: $(base64 -w0 "$PKI/$cert.crt")
    client-key-data: $(base64 -w0 "$PKI/$cert.key")
contexts:
- name: $CLUSTER
  context: {cluster: $CLUSTER, user: $cert}
current-context: $CLUSTER
YAML
	)
	mv "$file.new" "$file"
}
