# shellcheck shell=bash
# The machine: one process of QEMU, whose processor is emulated. KVM is not asked for: it is not everywhere.
#
# Its clock counts instructions (2 ns each) while it computes, and is this machine's while it waits: so it misses no deadline
# for want of a processor, however busy this machine is. Jumping ahead where it waits (`sleep=off`) would be quicker, but also
# jumps ahead of the disks. It has one processor, without what is quick on a real one and slow on an emulated one: copies byte by
# byte (ERMS), guards at each system call.

# boot SECONDS SCRIPT: starts it, shows what it prints, and gives the script's exit code.
boot() {
	local seconds=${EXECLET_VM_SECONDS:-$1} script=$2 rc began=$SECONDS
	local command=(
		qemu-system-x86_64 -accel tcg,thread=single -cpu "max,erms=off,smap=off,pku=off,la57=off"
		-icount shift=1,sleep=on,align=off -rtc clock=vm
		-m "${EXECLET_VM_MEMORY:-3072}"
		-nographic -no-reboot -nic none
		-drive "file=$IMAGE,if=none,id=root,format=raw,snapshot=on,cache=unsafe" -device nvme,drive=root,serial=root
		-drive "file=$WORK/payload.tar,if=none,id=payload,format=raw,readonly=on" -device nvme,drive=payload,serial=payload
		-kernel "$KERNEL/boot/vmlinuz-$RELEASE"
		-append "console=ttyS0 quiet panic=-1 mitigations=off init_on_alloc=0 root=/dev/nvme0n1 rw rootfstype=ext4 init=/sbin/vm-init vm.run=$script"
	)
	say "starting the machine, for at most $seconds s"
	mkfifo "$WORK/console"
	# It ends with this shell, also where that is killed.
	setpriv --pdeathsig TERM timeout -k 5 "$seconds" setpriv --pdeathsig KILL "${command[@]}" \
		</dev/null >"$WORK/console" 2>&1 &
	MACHINE=$!
	# Aside, because a signal is heeded while this shell waits, and not before the end of a command.
	show_console <"$WORK/console" &
	rc=0
	wait "$MACHINE" || rc=$?
	wait $! || true
	MACHINE=
	((rc != 124 && rc != 137)) || die "the machine was ended after $seconds s; next: EXECLET_VM_SECONDS=$((seconds * 2))"
	rc=$(sed -n 's/^vm: rc=\([0-9]*\).*/\1/p' "$WORK/console.log" | tail -n1)
	[[ $rc ]] || die "the machine ended before its script did"
	# Not in a pipe: what runs there has had no children. Of all that this shell has waited for the machine is nearly all.
	times >"$WORK/times"
	say "the machine ran for $((SECONDS - began)) s, and took $(processor_seconds) s of a processor"
	return "$rc"
}

# The second line of `times`: user and system, as 1m2.345s.
processor_seconds() {
	awk 'NR == 2 { gsub("[ms]", " "); print int($1 * 60 + $2 + $3 * 60 + $4) }' "$WORK/times"
}

# Line by line, as they come, without what is meant for a terminal.
show_console() {
	local line
	while IFS= read -r line || [[ $line ]]; do
		line=${line//$'\r'/}
		line=${line//$'\e'[\[c]/}
		printf '%s\n' "$line"
		printf '%s\n' "$line" >>"$WORK/console.log"
	done
}
