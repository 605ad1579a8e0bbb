# shellcheck shell=bash
# The processes of a cluster, and how they are known again.
#
# Every process that this tool starts, and so every descendant of it, is in the
# cgroup tree /execlet<instance>: the daemons in its leaf `daemons`, containers in
# a leaf that their engine makes. The kernel keeps that list, so it also holds what
# has been orphaned or has changed its name, and a recycled process id is never
# mistaken for ours. A single daemon is known by its id with its start time.

# The hierarchy in which processes are tracked: any one that runc joins will do.
tracking_root() {
	local controller
	if [[ $(stat -fc %T /sys/fs/cgroup) == cgroup2fs ]]; then
		echo /sys/fs/cgroup
		return
	fi
	for controller in pids freezer memory devices; do
		if [[ -f /sys/fs/cgroup/$controller/cgroup.procs ]]; then
			echo "/sys/fs/cgroup/$controller"
			return
		fi
	done
	die "no cgroup hierarchy is mounted under /sys/fs/cgroup"
}

cgroup_mounts() {
	awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts
}

# Every process of this cluster, one id a line.
cluster_pids() {
	local root
	root=$(tracking_root)/$CLUSTER
	[[ -d $root ]] || return 0
	find "$root" -name cgroup.procs -exec cat {} + 2>/dev/null || true
}

start_time() { # PID: field 22 of stat, counted after the name, which may hold spaces
	local stat
	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
	stat=${stat##*) }
	# shellcheck disable=SC2086 # split into fields
	set -- $stat
	# Its first thread may end before the others, which have everything open.
	[[ $1 != Z || ${18} -gt 1 ]] || return 1
	echo "${20}"
}

pid_file() { echo "$DIR/$1/pids/$2"; }
log_file() { echo "$DIR/$1/log/$2.log"; }

# live_pid WHERE COMPONENT: its process id, or failure if it does not run.
live_pid() {
	local pid began
	{ read -r pid began <"$(pid_file "$1" "$2")"; } 2>/dev/null || return 1
	[[ $(start_time "$pid") == "$began" ]] || return 1
	echo "$pid"
}

running() { live_pid "$1" "$2" >/dev/null; }
not_running() { ! running "$1" "$2"; }

# spawn WHERE COMPONENT COMMAND...: starts a daemon, remembers it, and goes on.
# Where its place has a holder, it starts inside the holder's namespaces.
spawn() {
	local where=$1 component=$2 holder daemons enter=()
	shift 2
	daemons=$(tracking_root)/$CLUSTER/daemons
	mkdir -p "$daemons" "$DIR/$where/pids"
	if [[ $component != holder ]]; then
		holder=$(live_pid "$where" holder) || die "$where has no namespaces: next: cluster up"
		enter=(nsenter --target "$holder" --net --mount --uts --)
	fi
	(
		exec </dev/null >>"$(log_file "$where" "$component")" 2>&1
		# No descriptor of ours may live on in a daemon: a lock would stay held.
		for fd in /proc/self/fd/*; do
			fd=${fd##*/}
			((fd <= 2)) || eval "exec $fd>&-"
		done
		echo "$BASHPID" >"$daemons/cgroup.procs"
		cd /
		exec setsid "${enter[@]}" env -i \
			PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
			HOME=/root EXECLET_CLUSTER="$CLUSTER" EXECLET_CLUSTER_DIR="$DIR" "$@"
	) &
	remember "$where" "$component" $!
	disown
}

remember() {
	local file
	file=$(pid_file "$1" "$2")
	# Gone already means that it failed at once; the caller's wait says so.
	echo "$3 $(start_time "$3" || echo 0)" >"$file.new"
	mv "$file.new" "$file"
}

signal_component() { # WHERE COMPONENT SIGNAL
	local pid
	pid=$(live_pid "$1" "$2") || die "$2 of $1 does not run"
	kill -s "$3" "$pid"
	# So that whoever starts it next does not find the one that is on its way out.
	[[ $3 != KILL ]] || wait_until 10 "$2 of $1 to be gone" not_running "$1" "$2"
}

# A daemon is asked to stop, waited for, and only then killed: an API server that
# is still draining holds its port.
stop_component() {
	local where=$1 component=$2 pid
	pid=$(live_pid "$where" "$component") || return 0
	kill -s TERM "$pid"
	kill -s CONT "$pid" # a stopped process cannot act on TERM
	if ! wait_until 30 "$component of $where to stop" not_running "$where" "$component"; then
		say "$component of $where does not stop, killing it"
		kill -s KILL "$pid"
		wait_until 10 "$component of $where to die" not_running "$where" "$component"
	fi
}

# Whether the processes in our cgroup belong to this folder: another folder with
# the same instance number has the same names, and is not ours to end.
foreign_owner() {
	local pid owner
	for pid in $(cluster_pids); do
		owner=$({ tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^EXECLET_CLUSTER_DIR=//p'; } 2>/dev/null) || continue
		[[ -n $owner && $owner != "$DIR" ]] || continue
		echo "$owner"
		return 0
	done
	return 1
}

kill_round() {
	local pid mount state alive
	# A frozen (paused) container keeps even SIGKILL pending.
	for mount in $(cgroup_mounts); do
		[[ -d $mount/$CLUSTER ]] || continue
		while read -r state; do
			echo THAWED >"$state" 2>/dev/null || true
		done < <(find "$mount/$CLUSTER" -name freezer.state 2>/dev/null)
	done
	alive=$(cluster_pids)
	for pid in $alive; do
		kill -s KILL "$pid" 2>/dev/null || true
	done
	[[ -z $alive ]]
}

remove_cgroups() {
	local mount
	for mount in $(cgroup_mounts); do
		[[ -d $mount/$CLUSTER ]] || continue
		find "$mount/$CLUSTER" -depth -type d -exec rmdir {} + 2>/dev/null || true
	done
	for mount in $(cgroup_mounts); do
		[[ ! -d $mount/$CLUSTER ]] || return 1
	done
}

# Ends every process of the cluster. There is nothing to save, so nothing is asked
# to shut down: the namespaces, and with them the mounts, links and rules, go with
# the last process that is in them.
kill_all_processes() {
	wait_until 60 "processes of $CLUSTER to die" kill_round
	wait_until 20 "cgroups of $CLUSTER to empty" remove_cgroups
}
