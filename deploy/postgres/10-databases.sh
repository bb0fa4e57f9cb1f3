#!/usr/bin/env bash
# Runs once, in an empty data directory: a database and a role per service, which sees no other service's tables.
set -euo pipefail

make_database() {
    local name=$1 password=$2
    psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres -v name="$name" -v password="$password" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
}

make_database order_service "$ORDER_SERVICE_DATABASE_PASSWORD"
make_database payment_service "$PAYMENT_SERVICE_DATABASE_PASSWORD"
make_database webhook_ingest "$WEBHOOK_INGEST_DATABASE_PASSWORD"
make_database reconciler "$RECONCILER_DATABASE_PASSWORD"
make_database gateway_sandbox "$GATEWAY_SANDBOX_DATABASE_PASSWORD"
