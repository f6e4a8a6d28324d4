#!/bin/bash
# Serve a model on this machine, or on its part of several; call it once it answers; clean up.
#
#   bash deploy/inference.sh MODEL [CLIENT.py]        # without CLIENT: serve until stopped
#   TP=8 bash deploy/inference.sh MODEL deploy/call_server.py
#   NODES=2 NODE_RANK=0 HEAD=host0 TP=8 PP=2 bash deploy/inference.sh MODEL CLIENT.py
#   NODES=2 NODE_RANK=1 HEAD=host0 TP=8 PP=2 bash deploy/inference.sh MODEL       # on the other one
#
# One process is a plain `flywright serve`; TP x PP of them are torchrun's, an equal part on each
# machine. The first machine serves HTTP, waits for health as the model card does, runs the client
# and stops; the others stop when it no longer answers. The status is the client's, or the server's.
# Under Slurm NODES, NODE_RANK and HEAD are the job's (deploy/slurm.sh).
#
# Other than on the card: the wait ends where the server has ended, or after WAIT_SECONDS; nothing
# is killed but what was started here, first by a signal that lets it finish (the card's `kill -9`
# does not, and its `pkill python` ends every Python of the user's on the machine).
set -euo pipefail

if (($# < 1)) || [[ ! -d $1 ]]; then
  echo "usage: $0 MODEL [CLIENT.py]; MODEL is a weights folder, this is not: '${1-}'" >&2
  exit 2
fi
MODEL=$1 CLIENT=${2-}
PORT=${PORT:-1424}
TP=${TP:-1} PP=${PP:-1}
NODES=${NODES:-${SLURM_NNODES:-1}}
NODE_RANK=${NODE_RANK:-${SLURM_NODEID:-0}}
HEAD=${HEAD:-127.0.0.1}               # the first machine, as all of them reach it
RENDEZVOUS_PORT=${RENDEZVOUS_PORT:-29400}
WAIT_SECONDS=${WAIT_SECONDS:-3600}    # 341B parameters take a while to read
GRACE_SECONDS=${GRACE_SECONDS:-60}    # from the first signal to the last
POLL_SECONDS=${POLL_SECONDS:-10}
BIND=${BIND:-}                        # what to listen on; default: this machine alone, if it is one
PYTHON=${PYTHON:-python3}             # the one that has flywright
read -r -a options <<<"${SERVE_OPTIONS-}" # further words for `flywright serve`: --nemo-strict ...

ranks=$((TP * PP))
if ((ranks % NODES)); then
  echo "TP $TP x PP $PP = $ranks processes do not divide among $NODES machines" >&2
  exit 2
fi
if ((NODES > 1)) && [[ $HEAD == 127.0.0.1 ]]; then
  echo "HEAD: name the first of the $NODES machines, as all of them reach it" >&2
  exit 2
fi
if [[ -n $CLIENT && ! -r $CLIENT ]]; then
  echo "$CLIENT: no such client" >&2
  exit 2
fi

say() { echo "[machine $NODE_RANK] $*" >&2; }

# The card's health check: whatever HTTP answers, also 404, says that the server is up.
answers() { curl --silent --output /dev/null --max-time 5 -X PUT "http://$HEAD:$PORT"; }

# A signal interrupts `wait`, but not a command in the foreground.
pause() {
  sleep "$1" &
  sleeper=$!
  wait "$sleeper"
}

server='' client='' sleeper=''
stop() { # the leader of a process group that was started here: it first, then what is left
  local left=$((GRACE_SECONDS * 5))
  kill -0 -- "-$1" 2>/dev/null || return 0 # else its number may be another's by now
  kill -TERM "$1" 2>/dev/null || true
  while kill -0 -- "-$1" 2>/dev/null && ((left-- > 0)); do sleep 0.2; done
  kill -KILL -- "-$1" 2>/dev/null || true
}
clean_up() {
  local status=$?
  trap '' INT TERM HUP
  [[ -z $sleeper ]] || kill "$sleeper" 2>/dev/null || true
  [[ -z $client ]] || stop "$client"
  if [[ -n $server ]]; then
    say "stopping the server ($server)"
    stop "$server"
  fi
  exit "$status"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

if ((NODE_RANK == 0)) && answers; then
  say "port $PORT: something else answers there; choose another PORT"
  exit 2
fi

((NODES == 1)) || BIND=${BIND:-0.0.0.0} # the other machines look whether it still answers
command=("$PYTHON" -m)
if ((ranks > 1)); then
  command+=(torch.distributed.run --nnodes "$NODES" --nproc-per-node $((ranks / NODES)))
  if ((NODES == 1)); then
    command+=(--standalone)
  else
    command+=(--node-rank "$NODE_RANK" --master-addr "$HEAD" --master-port "$RENDEZVOUS_PORT")
  fi
  command+=(-m)
  options=(--tp "$TP" --pp "$PP" ${options[@]+"${options[@]}"})
fi
command+=(flywright.cli serve "$MODEL" --host "${BIND:-127.0.0.1}" --port "$PORT")
command+=(${options[@]+"${options[@]}"})

say "starting: ${command[*]}"
SECONDS=0 # bash counts on
set -m # a process group of its own: all that it starts goes with it, and Ctrl-C comes here alone
"${command[@]}" &
server=$!
set +m

until answers; do
  if ! kill -0 "$server" 2>/dev/null; then
    wait "$server" && status=0 || status=$?
    say "the server ended before it answered (status $status)"
    exit $((status ? status : 1))
  fi
  if ((SECONDS >= WAIT_SECONDS)); then
    say "no answer from $HEAD:$PORT after $WAIT_SECONDS s"
    exit 1
  fi
  say "waiting for $HEAD:$PORT"
  pause "$POLL_SECONDS"
done
say "$HEAD:$PORT answers"

if ((NODE_RANK == 0)) && [[ -n $CLIENT ]]; then
  set -m
  PORT=$PORT "$PYTHON" "$CLIENT" &
  client=$!
  set +m
  wait "$client" && status=0 || status=$?
  exit "$status"
fi
if ((NODE_RANK == 0)); then
  wait "$server" && status=0 || status=$?
  exit "$status"
fi
missed=0
while ((missed < 3)) && kill -0 "$server" 2>/dev/null; do # once may be a full queue
  pause "$POLL_SECONDS"
  if answers; then missed=0; else missed=$((missed + 1)); fi
done
if ((missed == 0)); then
  say "the server ended, and $HEAD:$PORT still answers"
  exit 1
fi
say "$HEAD:$PORT is gone"
