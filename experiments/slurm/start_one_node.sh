#!/usr/bin/env bash
# A SLURM cluster of this machine alone, to try jobs on before they go to a real one.
#
#   sudo experiments/slurm/start_one_node.sh start    # then: sinfo, sbatch, squeue as anywhere
#   sudo experiments/slurm/start_one_node.sh stop
#
# Starts munged, slurmctld and slurmd from Debian's packages (apt-get install slurm-wlm munge)
# without systemd, so it works in containers too. Everything of it is in one folder,
# CONDCONV_SLURM_DIR (/tmp/condconv-slurm); only slurm.conf and cgroup.conf go where SLURM looks for
# them, and existing ones that are not ours are left alone. The node has the processors and memory
# that this machine has; its daemons listen on this machine's own address alone.
set -euo pipefail

DIR=${CONDCONV_SLURM_DIR:-/tmp/condconv-slurm}
CONF=/etc/slurm/slurm.conf
CGROUP_CONF=/etc/slurm/cgroup.conf
MARK="# Written by experiments/slurm/start_one_node.sh"

fail() {
  echo "start_one_node.sh: $1" >&2
  exit 1
}

runs() { # process; a zombie, which a container without init never buries, does not
  [[ $(ps -o stat= -p "$1" 2>/dev/null) =~ ^[^Z] ]]
}

alive() { # file with the process
  [[ -s $1 ]] && runs "$(cat "$1")"
}

ended() { # process
  ! runs "$1"
}

wait_for() { # what, command...
  local what=$1
  shift
  for _ in $(seq 100); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  fail "no $what after 10 seconds; read the logs in $DIR"
}

write_conf() {
  local host hardware cgroups
  host=$(hostname -s)
  # One line, "NodeName=... CPUs=... RealMemory=...": what slurmd finds is what it will report.
  hardware=$(slurmd -C | grep '^NodeName=')
  cat >"$CONF" <<EOF
$MARK
ClusterName=one-node
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/socket
CredType=cred/munge
# Listen on this machine's own name rather than on every address.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.pid
SlurmctldLogFile=$DIR/slurmctld.log
SlurmdLogFile=$DIR/slurmd.log
# Jobs as plain processes: containers seldom let a daemon make control groups.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# A machine that was asleep or restarted goes on by itself.
ReturnToService=2
# End with SIGTERM, and SIGKILL only after this many seconds: a run saves its state first.
KillWait=30
$hardware NodeAddr=127.0.0.1 State=UNKNOWN
PartitionName=local Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
  # Nothing above asks for control groups; before 23.02, SLURM still wants a name for them, and that
  # of version 1 loads where there are none.
  cgroups=disabled
  if [[ $(slurmd -V) =~ \ (1[0-9]|2[0-2])\. ]]; then cgroups=cgroup/v1; fi
  cat >"$CGROUP_CONF" <<EOF
$MARK
CgroupPlugin=$cgroups
EOF
}

start() {
  [[ $EUID -eq 0 ]] || fail "needs root; run it with sudo"
  for program in munged slurmctld slurmd; do
    command -v "$program" >/dev/null || fail "no $program; apt-get install slurm-wlm munge"
  done
  local file
  for file in "$CONF" "$CGROUP_CONF"; do
    if [[ -e $file ]] && ! grep -qxF "$MARK" "$file"; then
      fail "$file is of another cluster; this starts one only where there is none"
    fi
  done
  if alive "$DIR/slurmctld.pid"; then fail "runs already; stop it first"; fi
  mkdir -p "$DIR/munge" "$DIR/state" "$DIR/spool" "$(dirname "$CONF")"
  # munged insists on folders that nobody else can write to.
  chown munge: "$DIR/munge"
  chmod 755 "$DIR" "$DIR/munge"
  if [[ ! -s $DIR/munge/key ]]; then
    install -o munge -m 600 <(head -c 1024 /dev/urandom) "$DIR/munge/key"
  fi
  write_conf
  runuser -u munge -- munged --key-file="$DIR/munge/key" --socket="$DIR/munge/socket" \
    --pid-file="$DIR/munge/pid" --log-file="$DIR/munge/log" --seed-file="$DIR/munge/seed"
  wait_for "answer of munged" munge --socket="$DIR/munge/socket" --no-input
  slurmctld
  wait_for "answer of slurmctld" scontrol ping
  slurmd || fail "slurmd does not start; read $DIR/slurmd.log"
  wait_for "idle node" bash -c "sinfo --noheader --format=%T | grep -qx idle"
  sinfo
}

stop() {
  local file process
  for file in "$DIR/slurmd.pid" "$DIR/slurmctld.pid" "$DIR/munge/pid"; do
    if alive "$file"; then
      process=$(cat "$file")
      kill "$process"
      wait_for "end of process $process" ended "$process"
    fi
  done
  if [[ -e $CONF ]] && grep -qxF "$MARK" "$CONF"; then
    rm -f "$CONF" "$CGROUP_CONF"
  fi
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  *) fail "pass start or stop" ;;
esac
