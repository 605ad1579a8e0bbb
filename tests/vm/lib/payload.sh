# shellcheck shell=bash
# What changes from run to run: a second disk, which is a tar archive that the machine unpacks.

# payload_begin MODULE...: the scripts, the test cluster's tool at the path that the tests know, these programs of it, and
# its images.
payload_begin() {
	local module folder
	mkdir -p "$WORK/payload/vm"
	payload_file /vm/images.tar "$(<"$WORK/images")"
	payload_file /vm/programs "$WORK/programs"
	for module in "$@"; do
		folder=$(sed -n "s/^BIN_$module=//p" "$WORK/programs")
		mkdir -p "$WORK/payload$folder"
		cp -r --preserve=mode,links "$folder/." "$WORK/payload$folder/"
	done
	payload_checkout tests/cluster
	cp -r "$HERE/inside" "$WORK/payload/vm/"
	cat >"$WORK/payload/vm/settings" <<SH
CHECKOUT=${CHECKOUT@Q}
# An emulated processor takes its time.
export EXECLET_CACHE=${CACHE@Q} EXECLET_CLUSTER_PATIENCE=10 KUBE=${KUBE-}
SH
}

# payload_checkout PATH...: of this checkout, where the tests look for it.
payload_checkout() {
	mkdir -p "$WORK/payload$CHECKOUT"
	(cd "$CHECKOUT" && cp -r --parents "$@" "$WORK/payload$CHECKOUT/")
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

# payload_tests engine|e2e ENGINES ARGUMENT...: a test program, on which engines it is to run, and with which arguments.
payload_tests() {
	local which=$1 engines=$2 binary=${EXECLET_VM_TESTS:-}
	shift 2
	if [[ -z $binary ]]; then
		step "building the tests ($which)" build_tests "$which"
		binary=$(<"$WORK/binary")
	fi
	payload_program /vm/tests "$binary"
	printf '%s\n' "$@" >"$WORK/payload/vm/arguments"
	echo "$engines" >"$WORK/payload/vm/engines"
}

# Built here: the machine has no compiler.
build_tests() { # engine | e2e
	cd "$CHECKOUT"
	cargo test --locked --test "$1" --no-run --message-format=json >"$WORK/messages"
	sed -n "s/.*\"executable\":\"\([^\"]*\/$1-[^\"]*\)\".*/\1/p" "$WORK/messages" | tail -n1 >"$WORK/binary"
	[[ -s $WORK/binary ]]
}

# With the libraries that it links to, of which the first disk may not have all.
payload_program() { # PATH FILE
	local library
	strip --strip-debug -o "$WORK/program" "$2"
	payload_file "$1" "$WORK/program"
	for library in $(echo "$2" | libraries); do payload_file "$(sed -E 's,^/lib,/usr/lib,' <<<"$library")" "$library"; done
}
