# shellcheck shell=bash
# Starts and ends the demo's subscribers, `stream tail` on the live topic of each stream, and counts what they saw.
# Sourced after lib/pipeline.sh. There is one for a stream and checkout; its number, and what it saw as JSON lines,
# are in .local/demo.

STREAMS=(reviews documents)

# seen_file STREAM
seen_file() { printf '%s/live-%s.jsonl' "$DEMO" "$1"; }

# subscriber_log STREAM
subscriber_log() { printf '%s/demo-subscriber-%s.log' "$LOGS" "$1"; }

# subscriber_command STREAM: how its process is known
subscriber_command() { printf '%s stream tail %s' "$DEMO_CONFIG" "$1"; }

# subscriber_start STREAM: what was there before it started is seen too
subscriber_start() {
  "$ALBERTINE" --config "$DEMO_CONFIG" stream tail "$1" --since beginning --format json \
    </dev/null >"$(seen_file "$1")" 2>"$(subscriber_log "$1")" &
  echo $! >"$DEMO/subscriber-$1.pid"
  # Not a job of this shell any more: the shell would report its end in the middle of the output.
  disown $!
}

# subscriber_alive STREAM
subscriber_alive() { is_process "$(pid_in "$DEMO/subscriber-$1.pid")" "$(subscriber_command "$1")"; }

subscribers_stop() {
  local stream
  for stream in "${STREAMS[@]}"; do
    stop_process "$(pid_in "$DEMO/subscriber-$stream.pid")" "$(subscriber_command "$stream")" 5
    rm -f "$DEMO/subscriber-$stream.pid"
  done
}

# seen STREAM: how many records its subscriber saw
seen() { wc -l <"$(seen_file "$1")"; }

# published STREAM: how many records a reader finds that begins now
published() { albertine stream tail "$1" --since beginning --no-follow --format json 2>"$LOGS/demo-published-$1.log" | wc -l; }
