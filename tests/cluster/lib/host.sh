# shellcheck shell=bash
# What the machine must have: Debian packages, and a Go that can build the rest.

# One word a package: the package, and a file by which to see that it is there.
host_packages() {
	engine_packages
	cat <<'LIST'
iproute2 /usr/sbin/ip /sbin/ip
iptables /usr/sbin/iptables
conntrack /usr/sbin/conntrack
socat /usr/bin/socat
busybox-static /bin/busybox
openssl /usr/bin/openssl
util-linux /usr/bin/nsenter
tmux /usr/bin/tmux
curl /usr/bin/curl
LIST
}

missing_packages() {
	local package files file found
	while read -r package files; do
		found=
		for file in $files; do [[ -e $file ]] && found=1; done
		[[ $found ]] || echo "$package"
	done < <(host_packages)
}

ensure_packages() {
	local missing
	if grep -qs "$POLICY_MARK" $POLICY; then rm $POLICY; fi # of a killed run
	mapfile -t missing < <(missing_packages)
	((${#missing[@]})) || return 0
	command -v apt-get >/dev/null || die "missing: ${missing[*]}; install them (on Debian this tool does it)"
	step "installing Debian packages: ${missing[*]}" install_packages "${missing[@]}"
	mapfile -t missing < <(missing_packages)
	((${#missing[@]} == 0)) || die "installed, but their files are not where they are looked for: ${missing[*]}"
}

# The packages' services must not start: a second engine on the host's own
# sockets and bridges would be in the way. Where the machine has no policy of its
# own, ours stands only as long as the installation.
readonly POLICY=/usr/sbin/policy-rc.d
readonly POLICY_MARK='of the execlet test cluster'

install_packages() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get update
	if [[ ! -e $POLICY ]]; then
		trap 'rm -f $POLICY' EXIT
		printf '#!/bin/sh\n# %s\nexit 101\n' "$POLICY_MARK" >$POLICY
		chmod 755 $POLICY
	fi
	apt-get install -y --no-install-recommends "$@"
}

readonly WANTED_GO=1.26

ensure_go() {
	local have
	command -v go >/dev/null || die \
		"no 'go' on the PATH: the Kubernetes programs are built from source" \
		"next: install Go $WANTED_GO or later (https://go.dev/dl) and put it on the PATH"
	have=$(go env GOVERSION)
	if [[ $(printf '%s\n' "$WANTED_GO" "${have#go}" | sort -V | head -n1) != "$WANTED_GO" ]]; then
		die "$have is too old: Go $WANTED_GO or later is wanted ($(command -v go))"
	fi
}
