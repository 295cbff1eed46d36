# shellcheck shell=bash
# Loopback ports: chosen once, remembered in .local/ports, chosen anew only when another program took one.
# Sourced by the local services, which choose while they hold the lock of `services up`: two writers at
# once would lose a line. It never opens a listening socket itself.

PORTS_FILE="$LOCAL/ports"
# Below the range the kernel hands to outgoing connections (32768 and up), so that none of those can
# sit on a remembered port.
PORT_LOWEST=20000
PORT_COUNT=12000

# port_answers PORT: something listens there
port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# port_of NAME: the remembered port, or nothing
port_of() {
  [[ -r "$PORTS_FILE" ]] || return 0
  sed -n "s/^$1=\([0-9][0-9]*\)$/\1/p" "$PORTS_FILE" | tail -n 1
}

# choose_port NAME: remembers and prints a port that is free now; keeps the remembered one if it is free.
choose_port() {
  local port
  port="$(port_of "$1")"
  while [[ -z "$port" ]] || port_answers "$port" || port_is_others "$1" "$port"; do
    port=$((PORT_LOWEST + (RANDOM * 32768 + RANDOM) % PORT_COUNT))
  done
  remember_port "$1" "$port"
  printf '%s' "$port"
}

# port_is_others NAME PORT: another of our own services has it in its books
port_is_others() { grep -v "^$1=" "$PORTS_FILE" 2>/dev/null | grep -q "=$2\$"; }

remember_port() {
  { grep -v "^$1=" "$PORTS_FILE" 2>/dev/null || true; } >"$PORTS_FILE.new"
  printf '%s=%s\n' "$1" "$2" >>"$PORTS_FILE.new"
  mv -f "$PORTS_FILE.new" "$PORTS_FILE"
}
