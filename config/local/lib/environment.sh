# shellcheck shell=bash
# .local/env: the addresses of the services as `export` lines, to be sourced by a shell, make or a script.
# Sourced by `services`. It starts nothing.
#
# A value that the caller has set is theirs and stays. The caller may also have sourced .local/env earlier:
# then it is ours, which the twin ALBERTINE_LOCAL_<NAME> beside it tells.

is_external() {
  local twin="ALBERTINE_LOCAL_$1"
  [[ -n "${!1:-}" && "${!1}" != "${!twin:-}" ]]
}

# export_line NAME VALUE: our value with its twin; theirs, where they set one
export_line() {
  if is_external "$1"; then
    printf 'export %s=%q\n' "$1" "${!1}"
    printf 'unset ALBERTINE_LOCAL_%s\n' "$1"
  else
    printf 'export %s=%q\n' "$1" "$2"
    printf 'export ALBERTINE_LOCAL_%s=%q\n' "$1" "$2"
  fi
}

write_environment() {
  local postgres=''
  is_external DATABASE_URL || postgres="$(postgres_url)"
  {
    echo '# Written by config/local/services; to be sourced. It holds the password of the local database.'
    export_line KAFKA_BOOTSTRAP_SERVERS "$(kafka_address)"
    export_line DATABASE_URL "$postgres"
    if is_external SCHEMA_REGISTRY_URL || registry_alive; then export_line SCHEMA_REGISTRY_URL "$(registry_url)"; fi
    export_line ORT_DYLIB_PATH "$(package_folder onnxruntime)/libonnxruntime.so"
    if [[ -n "$postgres" ]]; then
      echo '# so that plain psql opens that database'
      printf 'export PGHOST=127.0.0.1 PGPORT=%q PGUSER=%q PGDATABASE=%q PGPASSWORD=%q\n' "$(port_of postgres)" \
        "$POSTGRES_NAME" "$POSTGRES_NAME" "$(<"$POSTGRES_PASSWORD_FILE")"
    fi
    echo '# A build must not ask this database about the queries it checks.'
    echo 'export SQLX_OFFLINE=true'
    if [[ -d "$POSTGRES_BIN" ]]; then
      echo '# psql of the same version as the server, unless it is there already'
      # shellcheck disable=SC2016 # the reader's PATH, not ours
      printf 'case ":$PATH:" in *:%q:*) ;; *) export PATH=%q:"$PATH" ;; esac\n' "$POSTGRES_BIN" "$POSTGRES_BIN"
    fi
  } | make_private "$LOCAL/env"
}
