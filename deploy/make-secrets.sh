#!/usr/bin/env bash
# Writes what compose.yaml needs and git must never see: deploy/.env and deploy/secrets/. What exists is left alone.
#
#   deploy/make-secrets.sh            passwords, a signing key per service and the JWKS that verifies them
#   deploy/make-secrets.sh --demo     the same for trying out: the gateway sandbox, and gateways that point at it
set -euo pipefail
cd "$(dirname "$0")"
umask 077
services=(order-service payment-service webhook-ingest reconciler operator)

command -v openssl >/dev/null || { echo "error: openssl is needed to make the keys; install it." >&2; exit 1; }
random() { openssl rand -hex 24; }

mkdir -p secrets
for service in "${services[@]}"; do
    [ -e "secrets/$service.pem" ] || openssl genpkey -algorithm ed25519 -out "secrets/$service.pem"
    chmod 644 "secrets/$service.pem"    # mounted as it is, and the container's user is not ours; the folder is closed
done
chmod 700 secrets

public_key() { openssl pkey -in "secrets/$1.pem" -pubout -outform DER | tail -c 32 | openssl base64 -A | tr '+/' '-_' | tr -d '='; }
{
    printf '{"keys": ['
    separator=
    for service in "${services[@]}"; do
        printf '%s{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "%s", "x": "%s"}' \
            "$separator" "$service" "$(public_key "$service")"
        separator=', '
    done
    printf ']}\n'
} > secrets/jwks.json
chmod 644 secrets/jwks.json

if [ ! -e .env ]; then
    {
        echo "PUBLIC_BASE_URL=http://127.0.0.1:8000"
        for name in POSTGRES RABBITMQ ORDER_SERVICE_DATABASE PAYMENT_SERVICE_DATABASE WEBHOOK_INGEST_DATABASE \
            RECONCILER_DATABASE GATEWAY_SANDBOX_DATABASE; do
            echo "${name}_PASSWORD=$(random)"
        done
        if [ "${1:-}" = --demo ]; then
            echo "COMPOSE_PROFILES=demo"
            echo "PAYRAIL_ENVIRONMENT=development"
        fi
    } > .env
fi
# Also for an .env of before there were commands: the key with which order_service asks for refunds, as payment_service
# verifies it.
grep -q '^COMMAND_SIGNING_KEY=' .env || echo "COMMAND_SIGNING_KEY=$(openssl rand -hex 32)" >> .env
if [ "${1:-}" = --demo ] && [ ! -e gateways.env ]; then
    {
        echo "STRIPE_API_BASE=http://gateway-sandbox:8000/sandbox/stripe"
        echo "STRIPE_API_KEY=sk_test_$(random)"
        echo "STRIPE_WEBHOOK_SECRET=whsec_$(random)"
        echo "GENERIC_API_BASE=http://gateway-sandbox:8000/sandbox/generic"
        echo "GENERIC_API_KEY=$(random)"
        echo "WEBHOOK_SECRET=$(random)"
    } > gateways.env
fi
echo "deploy/.env and deploy/secrets/ are there. Operators' tokens are signed by deploy/secrets/operator.pem, kid operator."
