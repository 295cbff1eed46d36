# shellcheck shell=bash
# Paths, output and failure messages that every script under config/local shares.
# Sourced, never run. It starts nothing and writes nothing by itself.

set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd -P)"
LOCAL="$ROOT/.local"
LOGS="$LOCAL/logs"
export ROOT LOCAL LOGS

# Colours only where a person looks, and not where they asked for none (https://no-color.org).
if [[ -t 1 && -z "${NO_COLOR:-}" && "${TERM:-dumb}" != dumb ]]; then
  BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' CYAN=$'\e[36m' RESET=$'\e[0m'
else
  BOLD='' DIM='' RED='' GREEN='' YELLOW='' CYAN='' RESET=''
fi
# A build may be drawing its progress bar on the same terminal: clear its line before writing ours.
if [[ -t 1 ]]; then FRESH_LINE=$'\r\e[K'; else FRESH_LINE=''; fi
export BOLD DIM RED GREEN YELLOW CYAN RESET FRESH_LINE

now_ms() { date +%s%3N; }

# seconds_since START_MS: "12.3 s"
seconds_since() {
  local ms=$(($(now_ms) - $1))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

# megabytes BYTES: "13.6 MB"
megabytes() {
  printf '%d.%d MB' $(($1 / 1000000)) $(($1 % 1000000 / 100000))
}

# with_thousands 19503: "19,503"
with_thousands() {
  local digits=$1 out=''
  while ((${#digits} > 3)); do
    out=",${digits: -3}$out"
    digits=${digits:0:${#digits}-3}
  done
  printf '%s%s' "$digits" "$out"
}

# done_line WHAT DETAIL: one finished step, aligned with its neighbours
done_line() {
  printf '%s  %s%-12s%s %s\n' "$FRESH_LINE" "$GREEN" "$1" "$RESET" "$2"
}

# fail STEP LOG REMEDY: what failed, where its log is and how it ended, and what to do. LOG may be ''.
fail() {
  {
    printf '%s\n%sfailed: %s%s\n' "$FRESH_LINE" "$RED" "$1" "$RESET"
    if [[ -n "$2" ]]; then
      printf '  log: %s\n' "$2"
      if [[ -s "$2" ]]; then tail -n 15 -- "$2" | sed 's/^/  | /'; fi
    fi
    printf '  remedy: %s\n' "$3"
  } >&2
  exit 1
}

# make_local: creates .local, or says why this user cannot use it.
make_local() {
  if [[ -d "$LOCAL" && ! -O "$LOCAL" ]]; then
    local owner
    owner="$(stat -c %U "$LOCAL")"
    fail "using $LOCAL as user $(id -un): it belongs to $owner" '' \
      "run as $owner, or have $owner run 'make stop' and remove $LOCAL (and $ROOT/target if it is theirs too)"
  fi
  mkdir -p "$LOGS"
  chmod 755 "$LOCAL"
}

# make_private FILE < content: writes FILE readable by its owner alone, in one step.
make_private() {
  local draft="$1.new.$BASHPID"
  (umask 077 && cat >"$draft")
  mv -f "$draft" "$1"
}

# random_word: 32 hexadecimal digits
random_word() { head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n'; }

# is_process PID TEXT: that process lives and its command line holds TEXT, so a reused number is not ours.
is_process() {
  [[ "$1" =~ ^[0-9]+$ ]] || return 1
  [[ "$({ tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null)" == *"$2"* ]]
}

# pid_in FILE: the number on the first line, or nothing
pid_in() {
  local pid=''
  if [[ -r "$1" ]]; then read -r pid <"$1" || true; fi
  printf '%s' "$pid"
}

# await_start PID CHECK: until CHECK holds. Fails where the process has ended, or after 90 seconds. It is a child of this shell, told by
# its number alone: before it has become what it is to run, its command line is still this script's.
await_start() {
  local deadline=$(($(now_ms) + 90000))
  until "$2"; do
    kill -0 "$1" 2>/dev/null || return 1
    (($(now_ms) < deadline)) || return 1
    sleep 0.1
  done
}

# stop_process PID TEXT SECONDS: asks it to end, and after that many seconds makes it.
stop_process() {
  local deadline=$(($(now_ms) + $3 * 1000))
  is_process "$1" "$2" || return 0
  kill -TERM "$1" 2>/dev/null || true
  while is_process "$1" "$2"; do
    if (($(now_ms) > deadline)); then
      kill -KILL "$1" 2>/dev/null || true
      deadline=$((deadline + 10000))
    fi
    sleep 0.05
  done
}
