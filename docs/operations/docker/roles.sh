#!/bin/sh
# The database's container runs this once, on an empty volume: roles, and the passwords of two of them.
set -eu
run() { psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname "$POSTGRES_DB" "$@"; }

run --file "${SYNCFLOW_ROLES:-/etc/syncflow/roles.sql}"
# read by psql itself: a command line can be read by everyone on the machine
run <<'SQL'
\getenv owner SYNCFLOW_OWNER_PASSWORD
\getenv app SYNCFLOW_APP_PASSWORD
ALTER ROLE syncflow_owner LOGIN PASSWORD :'owner';
ALTER ROLE syncflow_app LOGIN PASSWORD :'app';
SQL
