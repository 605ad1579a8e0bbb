# shellcheck shell=bash
# The disk that the machine starts from: an ext4 file system with this machine's own programs. It is never written to.

# Whose programs are in the machine, with the libraries that they link to.
readonly PACKAGES=(bash dash coreutils util-linux mount iproute2 iptables kmod mawk sed grep findutils tar gzip openssl
	curl conntrack socat procps docker.io containerd runc busybox-static libc-bin ca-certificates diffutils)

# Of the kernel's modules. NVMe and ext4 are built into Debian's cloud kernel: it needs no initial ramdisk.
readonly MODULE_FOLDERS=(net fs/overlayfs fs/fuse fs/nls drivers/net/veth.ko lib crypto)

ensure_image() {
	local key
	key=$({
		cat "$HERE/lib/image.sh"
		# shellcheck disable=SC2016 # of dpkg-query
		dpkg-query -W -f '${Package} ${Version}\n' "${PACKAGES[@]}"
		echo "$KERNEL"
	} | sha256sum | cut -c1-16)
	IMAGE=$VM_CACHE/image-$key.ext4
	readonly IMAGE
	[[ -f $IMAGE ]] || step "making the machine's disk" make_image
}

make_image() {
	local root=$WORK/root
	mkdir -p "$root"/{proc,sys,dev,run,tmp,root,etc,var/lib,var/log,home,vm} \
		"$root"/usr/{bin,sbin,lib,lib64,local/bin}
	for folder in bin sbin lib lib64; do ln -s "usr/$folder" "$root/$folder"; done
	ln -s /run "$root/var/run"
	all_files | tar -C / --no-recursion -cf - -T - 2>/dev/null | tar -C "$root" -xf - --keep-directory-symlink
	copy_modules "$root"
	write_settings "$root"
	install -m 755 "$HERE/inside/init" "$root/usr/sbin/vm-init"
	# Of earlier kernels or packages: they are made again in moments.
	rm -f "$VM_CACHE"/image-*.ext4
	mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$root" "$IMAGE.new" 6G
	mv "$IMAGE.new" "$IMAGE"
	rm -rf "$root"
}

# Relative to the root, each once.
all_files() {
	{ program_files; program_files | libraries; } | sed -E 's,^/(s?bin|lib|lib64)/,/usr/\1/,; s,^/,,' | sort -u
}

# Programs, the plug-ins of iptables and NSS, and the links between them.
program_files() {
	{
		dpkg -L "${PACKAGES[@]}" | grep -E '^/(usr/)?(s?bin|lib/x86_64-linux-gnu/(xtables|engines-3|ossl-modules))/.'
		ls /usr/lib/x86_64-linux-gnu/libnss_files* /usr/bin/awk /usr/sbin/iptables* /usr/sbin/ip6tables* \
			/etc/alternatives/{awk,iptables*,ip6tables*} 2>/dev/null
	} | while read -r file; do if [[ -f $file || -L $file ]]; then realpath -s "$file"; fi; done
}

libraries() {
	local library
	while read -r file; do if [[ ! -L $file ]]; then echo "$file"; fi; done |
		{ xargs ldd 2>/dev/null || true; } | grep -oE '/[^ :()]+\.so[^ :()]*' | sort -u |
		while read -r library; do printf '%s\n' "$library" "$(readlink -f "$library")"; done
}

copy_modules() { # ROOT
	local to=$1/usr/lib/modules/$RELEASE from=$KERNEL/lib/modules/$RELEASE folder
	mkdir -p "$to/kernel"
	cp "$from"/modules.* "$to/"
	for folder in "${MODULE_FOLDERS[@]}"; do
		if [[ -e $from/kernel/$folder ]]; then (cd "$from/kernel" && cp -r --parents "$folder" "$to/kernel/"); fi
	done
}

write_settings() { # ROOT
	local etc=$1/etc
	echo 'root:x:0:0:root:/root:/bin/bash' >"$etc/passwd"
	printf 'root:x:0:\ndocker:x:100:\n' >"$etc/group"
	echo '127.0.0.1 localhost' >"$etc/hosts"
	: >"$etc/resolv.conf"
	printf 'passwd: files\ngroup: files\nhosts: files\n' >"$etc/nsswitch.conf"
	cp -r /etc/ssl "$etc/"
	cp -a /usr/lib/ssl "$1/usr/lib/"
	mkdir -p "$etc/iproute2"
	cp -r /etc/iproute2/. "$etc/iproute2/" 2>/dev/null || true
}
