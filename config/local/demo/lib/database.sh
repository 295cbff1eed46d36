# shellcheck shell=bash
# The demo's questions to Postgres: one value, a table, or a query printed with its answer. Sourced.
# It opens a connection for each; the password comes from the environment, never from an argument.

SQL_FOLDER="$ROOT/config/local/demo/sql"

# sql ARGUMENT…: psql on the demo's database, quiet, ending at the first error
sql() {
  if [[ -n "${ALBERTINE_LOCAL_DATABASE_URL:-}" ]]; then
    psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 "$@"
  else
    psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname="$DATABASE_URL" "$@"
  fi
}

# value QUERY: one value
value() { sql --tuples-only --no-align --command="$1"; }

# table FILE [ARGUMENT…]: the answer as a table, indented
table() {
  local file=$1
  shift
  sql --pset=footer=off --pset=border=1 --file="$SQL_FOLDER/$file" "$@" | sed '/^$/d; s/^/    /'
}

# shown_query FILE: its comment as a heading, its text, its answer
shown_query() {
  printf '\n'
  sed -n "s/^-- \(.*\)/  $BOLD\1$RESET/p" "$SQL_FOLDER/$1"
  sed -n "/^--/d; s/^\(.*\)$/    $CYAN\1$RESET/p" "$SQL_FOLDER/$1"
  table "$1"
}
