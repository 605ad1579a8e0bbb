# shellcheck shell=bash
# What changes from run to run: a second disk, which is a tar archive that the machine unpacks.

# The scripts, the test cluster's tool at the path that the tests know, and what an engine needs of it.
payload_begin() {
	local pause
	pause=$(<"$WORK/pause")
	mkdir -p "$WORK/payload"
	payload_file /vm/images.tar "$(<"$WORK/images")"
	payload_file "$pause/pause" "$pause/pause"
	mkdir -p "$WORK/payload$CHECKOUT/tests" "$WORK/payload/vm"
	cp -r "$CHECKOUT/tests/cluster" "$WORK/payload$CHECKOUT/tests/"
	cp -r "$HERE/inside" "$WORK/payload/vm/"
	cat >"$WORK/payload/vm/settings" <<SH
CHECKOUT=${CHECKOUT@Q}
PAUSE=${pause@Q}
# An emulated processor takes its time.
export EXECLET_CACHE=${CACHE@Q} EXECLET_CLUSTER_PATIENCE=10
SH
}

payload_file() { # PATH FILE
	mkdir -p "$WORK/payload$(dirname "$1")"
	cp --no-preserve=ownership "$2" "$WORK/payload$1"
}

payload_end() {
	# The size of a disk is a multiple of its blocks.
	tar -C "$WORK/payload" --owner=0 --group=0 --blocking-factor=2048 -cf "$WORK/payload.tar" .
	rm -rf "$WORK/payload"
}

# Built here: the machine has no compiler.
build_tests() {
	cd "$CHECKOUT"
	cargo test --locked --test engine --no-run --message-format=json >"$WORK/messages"
	sed -n 's/.*"executable":"\([^"]*\/engine-[^"]*\)".*/\1/p' "$WORK/messages" | tail -n1 >"$WORK/binary"
	[[ -s $WORK/binary ]]
}

# With the libraries that it links to, of which the first disk may not have all.
payload_program() { # PATH FILE
	local library
	strip --strip-debug -o "$WORK/program" "$2"
	payload_file "$1" "$WORK/program"
	for library in $(echo "$2" | libraries); do payload_file "$(sed -E 's,^/lib,/usr/lib,' <<<"$library")" "$library"; done
}
