# shellcheck shell=bash
# The programs that no package has: each a small Go module under go/, built once
# a machine and kept outside the clone, under a name that changes with the
# module's files, the recipe and the compiler.

mapfile -t MODULES < <(printf '%s\n' pause etcd kube cri-dockerd helm interop cert-manager && engine_modules)
readonly MODULES

# module_sources MODULE: the folder that it is built in.
module_sources() {
	if [[ $1 == kube ]]; then echo "$HERE/go/$(kube_folder)"; else echo "$HERE/go/$1"; fi
}

module_cost() { # on two cores with nothing cached
	case $1 in
	kube) echo "about 5 min" ;;
	cri-dockerd | helm | cert-manager | dockerd) echo "about 2 min" ;;
	*) echo "under 1 min" ;;
	esac
}

# module_recipe MODULE: what is built (packages with commas between them), and the linker's settings.
module_recipe() {
	local version number folder
	case $1 in
	kube)
		# Without a stamp the server calls itself v0.0.0, and a chart's
		# kubeVersion check fails.
		version=$(awk '$1 == "k8s.io/kubernetes" && $2 ~ /^v/ { print $2 }' "$(module_sources kube)/go.mod")
		number=${version#v1.}
		echo ". -X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${number%%.*} -X k8s.io/client-go/pkg/version.gitVersion=$version"
		;;
	etcd) echo "go.etcd.io/etcd/server/v3" ;;
	cri-dockerd) echo "github.com/Mirantis/cri-dockerd" ;;
	helm) echo "helm.sh/helm/v4/cmd/helm" ;;
	pause | interop | cert-manager) echo "." ;;
	dockerd) echo "github.com/moby/moby/v2/cmd/dockerd" ;;
	containerd)
		folder=github.com/containerd/containerd/v2/cmd
		echo "$folder/containerd,$folder/containerd-shim-runc-v2,$folder/ctr"
		;;
	runc) echo "github.com/opencontainers/runc" ;;
	esac
}

# Whether a module is built with C, and with which tags.
module_needs_c() {
	[[ $1 == runc ]]
}

module_tags() {
	if [[ $1 == runc ]]; then echo seccomp; fi
}

# The names under which a module's binary is called.
module_commands() {
	case $1 in
	kube) echo kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl ;;
	containerd) echo containerd containerd-shim-runc-v2 ctr ;;
	*) echo "$1" ;;
	esac
}

declare -A BIN=() # module -> folder of its binaries, filled by locate_binaries

locate_binaries() {
	local module go_version
	go_version="$(go env GOVERSION)-$(go env GOARCH)"
	for module in "${MODULES[@]}"; do
		BIN[$module]=$CACHE/bin/$module-$(
			cd "$(module_sources "$module")" || exit
			{
				sha256sum -- *.go go.mod go.sum 2>/dev/null || true
				module_recipe "$module"
				echo "$go_version"
			} | sha256sum | cut -c1-16
		)
	done
}

# The programs and engines that the running cluster was made with, whatever the sources are now.
locate_running() {
	local module folder
	while IFS='=' read -r module folder; do BIN[$module]=$folder; done < <(sed -n 's/^BIN_//p' "$FACTS")
	engines_of_running
}

# As a command of its own: some of them need Debian's libraries.
build_missing() {
	kube_check
	ensure_packages
	build_all
}

build_all() {
	local module
	ensure_go
	locate_binaries
	for module in "${MODULES[@]}"; do
		[[ -d ${BIN[$module]} ]] && continue
		build_locked "$module"
	done
	[[ -f $(base_images) ]] || step "packing the base images" pack_base_images
}

# Two runs never build the same thing side by side: the second waits, and finds
# it done. The lock belongs to the open file, so a killed run leaves none behind.
build_locked() {
	local module=$1 lock
	mkdir -p "$CACHE/bin"
	exec {lock}>"$CACHE/bin/.$module.lock"
	if ! flock -n "$lock"; then
		say "another run is building $module, waiting for it"
		flock "$lock"
	fi
	if [[ ! -d ${BIN[$module]} ]]; then
		step "building $module (nothing cached: $(module_cost "$module") on 2 cores)" build_module "$module"
	fi
	exec {lock}>&-
}

build_module() {
	local module=$1 target=${BIN[$1]} temp recipe settings packages out command
	rm -rf "$CACHE/bin/.tmp-$module".* # of a killed build: only the lock's holder is here
	temp=$(mktemp -d "$CACHE/bin/.tmp-$module.XXXXXX")
	recipe=$(module_recipe "$module")
	settings=${recipe#"${recipe%% *}"}
	IFS=, read -ra packages <<<"${recipe%% *}"
	(
		cd "$(module_sources "$module")" || exit
		# One program is named after its module, several after their packages.
		out=$temp/
		if ((${#packages[@]} == 1)); then out+=$module; fi
		CGO_ENABLED=$(module_needs_c "$module" && echo 1 || echo 0) GOFLAGS=-buildvcs=false nice -n 5 \
			go build -mod=readonly -trimpath -tags "$(module_tags "$module")" -ldflags "-s -w $settings" -o "$out" "${packages[@]}"
	)
	if [[ $module == cert-manager ]]; then
		# Its resources, as they come with it.
		cp -r --no-preserve=mode "$(cd "$(module_sources "$module")" && go list -m -f '{{.Dir}}' github.com/cert-manager/cert-manager)/deploy/crds" "$temp/"
	fi
	for command in $(module_commands "$module"); do
		[[ -e $temp/$command ]] || ln -s "$module" "$temp/$command"
	done
	chmod 755 "$temp"
	mv -T "$temp" "$target"
}
