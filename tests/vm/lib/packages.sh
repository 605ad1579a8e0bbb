# shellcheck shell=bash
# What comes from packages: the emulator, and a kernel that is not installed but only unpacked.

readonly KERNEL_PACKAGE=${EXECLET_VM_KERNEL:-linux-image-cloud-amd64}

# One a line: the package, and a file by which to see that it is there.
programs() {
	cat <<'LIST'
qemu-system-x86 /usr/bin/qemu-system-x86_64
e2fsprogs /sbin/mke2fs
kmod /sbin/depmod
binutils /usr/bin/strip
LIST
}

missing_programs() {
	local package file
	while read -r package file; do [[ -e $file ]] || echo "$package"; done < <(programs)
	# And those of which the first disk is made.
	comm -13 <(dpkg-query -W -f '${Package}\n' "${PACKAGES[@]}" 2>/dev/null | sort) <(printf '%s\n' "${PACKAGES[@]}" | sort)
}

# ensure_programs MODULE...: the machine's, and these of the test cluster.
ensure_programs() {
	local missing
	step "looking for engines, programs and images of the test cluster ($*)" "$HERE/lib/cluster-parts" "$WORK" "$@"
	mapfile -t missing < <(missing_programs)
	if ((${#missing[@]})); then
		command -v apt-get >/dev/null || die "missing: ${missing[*]}; install them (on Debian this tool does it)"
		step "installing Debian packages: ${missing[*]}" install_programs "${missing[@]}"
		mapfile -t missing < <(missing_programs)
		((${#missing[@]} == 0)) || die "installed, but their files are not where they are looked for: ${missing[*]}"
	fi
}

install_programs() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get update
	# Whatever else is being installed goes first.
	apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
}

# A kernel that is there is good enough: a newer one of the same package is no other test.
ensure_kernel() {
	mkdir -p "$VM_CACHE"
	KERNEL=$(cached_kernel)
	if [[ -z $KERNEL ]]; then
		step "fetching the kernel of $KERNEL_PACKAGE" fetch_kernel
		KERNEL=$(cached_kernel)
	fi
	RELEASE=$(ls "$KERNEL/lib/modules")
	readonly KERNEL RELEASE
}

cached_kernel() {
	find "$VM_CACHE" -maxdepth 1 -name "kernel-$KERNEL_PACKAGE-*" | sort -V | tail -n1
}

fetch_kernel() {
	local package temp release
	package=$(kernel_package || true)
	if [[ -z $package ]]; then
		apt-get update
		package=$(kernel_package)
	fi
	temp=$(mktemp -d "$VM_CACHE/.tmp.XXXXXX")
	# shellcheck disable=SC2064 # the path of now is meant
	trap "rm -rf '$temp'" EXIT
	chmod 755 "$temp"
	(cd "$temp" && { apt-get download "$package" || { apt-get update && apt-get download "$package"; }; })
	mkdir "$temp/root"
	dpkg-deb -x "$temp"/*.deb "$temp/root"
	release=$(ls "$temp/root/lib/modules")
	depmod -b "$temp/root" "$release"
	mv -T "$temp/root" "$VM_CACHE/kernel-$KERNEL_PACKAGE-$release"
}

# The package that has the files: that of the name may only depend on it.
kernel_package() {
	local depends
	depends=$(apt-cache show --no-all-versions "$KERNEL_PACKAGE" 2>/dev/null | sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p')
	[[ -z $depends ]] || { echo "$depends"; return; }
	apt-cache show --no-all-versions "$KERNEL_PACKAGE" >/dev/null 2>&1 && echo "$KERNEL_PACKAGE"
}
