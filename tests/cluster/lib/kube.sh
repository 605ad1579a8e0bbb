# shellcheck shell=bash disable=SC2034
# Which Kubernetes the cluster is, and the only place that knows what differs from version to version.

readonly USUAL_KUBE=1.36

# Unless one is asked for, it is that of the cluster which is up.
KUBE=${KUBE:-$(if [[ -f $FACTS ]]; then fact KUBE; fi)}
readonly KUBE=${KUBE:-$USUAL_KUBE}

# Each is a folder under go/; that of the usual one has no version in its name.
kube_versions() {
	local folder
	{
		echo $USUAL_KUBE
		for folder in "$HERE"/go/kube-*; do echo "${folder##*/kube-}"; done
	} | sort -V
}

kube_folder() {
	if [[ $KUBE == "$USUAL_KUBE" ]]; then echo kube; else echo "kube-$KUBE"; fi
}

kube_check() {
	[[ $'\n'$(kube_versions)$'\n' == *$'\n'$KUBE$'\n'* ]] ||
		die "KUBE=$KUBE is not known; known: $(kube_versions | xargs | sed 's/ /, /g')"
}

kube_is_at_least() { [[ $(printf '%s\n' "$1" "$KUBE" | sort -V | head -n1) == "$1" ]]; }

# The kubelet's feature gates; it refuses one that it does not know. KubeletCrashLoopBackOffMax: see crashLoopBackOff.
# ExtendWebSocketsToKubelet is there since 1.36, and on: with it, kubelet and cri-dockerd disagree about TLS on the
# streaming connection ("HTTP response to HTTPS client").
kubelet_gates() { # ENGINE
	local gates="KubeletCrashLoopBackOffMax: true"
	if [[ $1 == docker ]] && kube_is_at_least 1.36; then gates+=", ExtendWebSocketsToKubelet: false"; fi
	echo "featureGates: {$gates}"
}
