# shellcheck shell=bash
# Starts and ends the demo's pipeline in the background, and reads its metrics. Sourced.
# There is one such pipeline for a checkout; its number and log are in .local/demo.

DEMO="$LOCAL/demo"
DEMO_CONFIG=config/local/demo/albertine.toml
PIPELINE_PID_FILE="$DEMO/albertine.pid"
PIPELINE_LOG="$DEMO/albertine.log"
ALBERTINE="${CARGO_TARGET_DIR:-target}/debug/albertine"

# albertine ARGUMENT…: the program with the demo's configuration
albertine() { "$ALBERTINE" --config "$DEMO_CONFIG" "$@"; }

pipeline_pid() { pid_in "$PIPELINE_PID_FILE"; }

pipeline_alive() { is_process "$(pipeline_pid)" "$DEMO_CONFIG"; }

# pipeline_start: in a session of its own, so that Ctrl-C in this terminal does not reach it
pipeline_start() {
  ALBERTINE_METRICS__LISTEN="$METRICS_ADDRESS" \
    setsid "$ALBERTINE" --config "$DEMO_CONFIG" run </dev/null >>"$PIPELINE_LOG" 2>&1 &
  echo $! >"$PIPELINE_PID_FILE"
  # Where it has ended already, whoever waits for it says so.
  await_start $! pipeline_alive || true
}

# pipeline_kill: at once, with no chance to finish or hand back anything
pipeline_kill() {
  local pid
  pid="$(pipeline_pid)"
  # Not a job of this shell any more: the shell would report its death in the middle of the output.
  disown "$pid" 2>/dev/null || true
  kill -KILL "$pid"
  while is_process "$pid" "$DEMO_CONFIG"; do sleep 0.01; done
}

# Longer than the pipeline's own deadline for a graceful end.
pipeline_stop() {
  stop_process "$(pipeline_pid)" "$DEMO_CONFIG" 40
  rm -f "$PIPELINE_PID_FILE"
}

# metric NAME: its sum over all labels, 0 before its first increment
metric() {
  curl --fail --silent --max-time 2 "http://$METRICS_ADDRESS/metrics" |
    awk -v name="$1" 'index($1, name "{") == 1 || $1 == name { sum += $2 } END { printf "%d", sum }'
}
