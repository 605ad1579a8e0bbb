# shellcheck shell=bash
# The two images that every node has without a registry: pause, and a busybox
# with its applets, a shell and a user besides root. They are archives as
# `docker save` writes them, the same bytes on every node.

base_images() {
	echo "$CACHE/images/base-$(
		{
			cat "$HERE/lib/images.sh"
			echo "${BIN[pause]}"
			sha256sum /bin/busybox
		} | sha256sum | cut -c1-16
	).tar"
}

pack_base_images() {
	local target temp
	target=$(base_images)
	mkdir -p "$CACHE/images"
	temp=$(mktemp -d "$CACHE/images/.tmp.XXXXXX")
	# shellcheck disable=SC2064 # the path of now is meant
	trap "rm -rf '$temp'" EXIT

	mkdir -p "$temp/pause" "$temp/busybox" "$temp/archive"
	cp "${BIN[pause]}/pause" "$temp/pause/pause"
	busybox_rootfs "$temp/busybox"

	add_image "$temp/archive" pause "$temp/pause" '"Entrypoint": ["/pause"]'
	add_image "$temp/archive" busybox "$temp/busybox" '"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]'
	cat >"$temp/archive/manifest.json" <<JSON
[
  {"Config": "pause.json", "RepoTags": ["$PAUSE_IMAGE"], "Layers": ["pause.tar"]},
  {"Config": "busybox.json", "RepoTags": ["$BUSYBOX_IMAGE"], "Layers": ["busybox.tar"]}
]
JSON
	tar -C "$temp/archive" -cf "$temp/base.tar" .
	mv "$temp/base.tar" "$target"
}

# add_image ARCHIVE NAME ROOTFS CONFIG: one layer and its image config.
add_image() {
	local archive=$1 name=$2 rootfs=$3 config=$4 sum
	tar -C "$rootfs" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$archive/$name.tar" .
	sum=$(sha256sum "$archive/$name.tar" | cut -d' ' -f1)
	cat >"$archive/$name.json" <<JSON
{
  "architecture": "$(go env GOARCH)",
  "os": "linux",
  "created": "1970-01-01T00:00:00Z",
  "config": {$config},
  "rootfs": {"type": "layers", "diff_ids": ["sha256:$sum"]}
}
JSON
}

busybox_rootfs() {
	local root=$1 applet
	mkdir -p "$root"/{bin,etc,home/app,proc,root,sys,tmp,var}
	chmod 1777 "$root/tmp"
	chmod 777 "$root/home/app" # the archive owns everything as root
	cp /bin/busybox "$root/bin/busybox"
	for applet in $(/bin/busybox --list); do
		[[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
	done
	cat >"$root/etc/passwd" <<'PASSWD'
root:x:0:0:root:/root:/bin/sh
app:x:1000:1000:app:/home/app:/bin/sh
PASSWD
	printf 'root:x:0:\napp:x:1000:\n' >"$root/etc/group"
}
