# shellcheck shell=bash
# Names, and the few words in which the tool speaks.

readonly CACHE=${EXECLET_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/execlet}
readonly VM_CACHE=$CACHE/vm

say() { echo "vm: $*" >&2; }

die() {
	say "$@"
	exit 1
}

# A folder for this run, which goes with it, and the machine's process before that.
make_work() {
	WORK=$(mktemp -d "${TMPDIR:-/tmp}/execlet-vm.XXXXXX")
	readonly WORK
	trap at_exit EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
}

MACHINE=
at_exit() {
	if [[ $MACHINE ]]; then
		kill "$MACHINE" 2>/dev/null || true
		wait "$MACHINE" 2>/dev/null || true
	fi
	rm -rf "$WORK"
}

# Runs a step and says what it is and how long it took. Its output is shown only if it fails.
step() {
	local what=$1 began=$SECONDS rc=0
	shift
	printf 'vm: %s... ' "$what" >&2
	# Not the condition of an `if`: that would switch `set -e` off inside.
	set +e
	(set -e; "$@") >"$WORK/step.log" 2>&1
	rc=$?
	set -e
	if ((rc == 0)); then
		printf 'done in %d s\n' $((SECONDS - began)) >&2
		return 0
	fi
	printf 'FAILED after %d s (exit code %d)\n' $((SECONDS - began)) $rc >&2
	tail -n 40 "$WORK/step.log" | sed 's/^/  | /' >&2
	exit 1
}
