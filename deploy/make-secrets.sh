#!/usr/bin/env bash
# Writes what compose.yaml needs and git must never see: deploy/.env and deploy/secrets/. What exists is left alone, and
# what a newer release wants besides is added.
#
#   deploy/make-secrets.sh            passwords, a signing key per service and the JWKS that verifies them
#   deploy/make-secrets.sh --demo     the same for trying out: the gateway sandbox, and gateways that point at it
set -euo pipefail
cd "$(dirname "$0")"
umask 077
services=(order-service payment-service webhook-ingest reconciler operator)
sandbox=http://gateway-sandbox:8000/sandbox

command -v openssl >/dev/null || { echo "error: openssl is needed to make the keys; install it." >&2; exit 1; }
random() { openssl rand -hex "${1:-24}"; }
# Adds a line to a file that may have been edited, and may not end in one.
add() { [ -z "$(tail -c 1 "$1")" ] || echo >> "$1"; echo "$2" >> "$1"; }

# Certificates from somewhere else than PayPal are refused in production, so an installation is one or the other.
if [ "${1:-}" = --demo ] && [ -e .env ] && ! grep -q '^PAYRAIL_ENVIRONMENT=development$' .env; then
    echo "error: deploy/.env is not that of a demo; move it away, or leave out --demo." >&2
    exit 1
fi

mkdir -p secrets/gateways
for service in "${services[@]}"; do
    [ -e "secrets/$service.pem" ] || openssl genpkey -algorithm ed25519 -out "secrets/$service.pem"
    chmod 644 "secrets/$service.pem"    # mounted as it is, and the container's user is not ours; the folder is closed
done
chmod 755 secrets/gateways              # mounted as a folder: files that gateways.env names, such as certificates
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
# Also for an .env of before there were commands: the keys with which order_service asks for refunds and the reconciler
# for what settles its cases, as their receivers verify them.
for name in COMMAND_SIGNING_KEY RECONCILER_COMMAND_SIGNING_KEY; do
    grep -q "^$name=" .env || add .env "$name=$(random 32)"
done

# What the sandbox's PayPal signs webhooks with, and the root that webhook_ingest trusts for it. The root signs one leaf
# and is forgotten; the two files belong together, so both are made when one is missing.
make_paypal_signing() {
    [ -e secrets/paypal-signing.pem ] && [ -e secrets/gateways/paypal-root.pem ] && return
    local made
    made=$(mktemp -d secrets/made.XXXXXX)
    cat > "$made/config" <<'CONFIG'
[req]
distinguished_name = name
prompt = no
[name]
CN = Payrail sandbox root
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
CONFIG
    openssl req -x509 -newkey rsa:2048 -nodes -sha256 -days 9000 -config "$made/config" -extensions root \
        -keyout "$made/root.key" -out "$made/root.pem" 2> "$made/log" &&
    openssl req -new -newkey rsa:2048 -nodes -sha256 -config "$made/config" \
        -subj /CN=messageverificationcerts.sandbox.paypal.com \
        -keyout "$made/leaf.key" -out "$made/leaf.csr" 2>> "$made/log" &&
    openssl x509 -req -sha256 -days 9000 -in "$made/leaf.csr" -CA "$made/root.pem" -CAkey "$made/root.key" \
        -set_serial "0x01$(random 8)" -extfile "$made/config" -extensions leaf -out "$made/leaf.pem" 2>> "$made/log" ||
        { cat "$made/log" >&2; rm -r "$made"; exit 1; }
    cat "$made/leaf.key" "$made/leaf.pem" > "$made/signing.pem"
    chmod 644 "$made/root.pem" "$made/signing.pem"
    mv "$made/root.pem" secrets/gateways/paypal-root.pem
    mv "$made/signing.pem" secrets/paypal-signing.pem
    rm -r "$made"
}

# A gateway's settings that gateways.env lacks. One that has an address elsewhere, or settings and no address, is
# somebody's own: what is missing there would mix it with the sandbox.
#   sandbox_gateway <what its own names begin with> <its path in the sandbox> <name>=<value>…
sandbox_gateway() {
    local prefix=$1 address="$1_API_BASE=$sandbox/$2" line
    shift 2
    if grep -q "^${prefix}_" gateways.env && ! grep -qxF "$address" gateways.env; then
        echo "deploy/gateways.env has other settings for $prefix: left alone." >&2
        return
    fi
    for line in "$address" "$@"; do
        grep -q "^${line%%=*}=" gateways.env || add gateways.env "$line"
    done
}

if [ "${1:-}" = --demo ]; then
    outside=$(sed -n 's/^PUBLIC_BASE_URL=//p' .env)/sandbox     # browsers know no container
    make_paypal_signing
    touch gateways.env
    sandbox_gateway STRIPE stripe "STRIPE_API_KEY=sk_test_$(random)" "STRIPE_WEBHOOK_SECRET=whsec_$(random)"
    sandbox_gateway GENERIC generic "GENERIC_API_KEY=$(random)" "WEBHOOK_SECRET=$(random)"
    sandbox_gateway RAZORPAY razorpay "RAZORPAY_KEY_ID=rzp_test_$(random 7)" "RAZORPAY_KEY_SECRET=$(random 12)" \
        "RAZORPAY_CHECKOUT_BASE=$outside/razorpay" "RAZORPAY_WEBHOOK_SECRET=$(random)"
    sandbox_gateway PAYPAL paypal "PAYPAL_CLIENT_ID=$(random)" "PAYPAL_CLIENT_SECRET=$(random)" \
        "PAYPAL_WEBHOOK_ID=$(random 8 | tr '[:lower:]' '[:upper:]')" "PAYPAL_CERT_HOSTS=$sandbox/paypal" \
        "PAYPAL_WEBHOOK_CA_FILE=/run/gateways/paypal-root.pem"
    sandbox_gateway TABBY tabby "TABBY_SECRET_KEY=sk_test_$(random 16)" TABBY_MERCHANT_CODE=payrail \
        "TABBY_WEBHOOK_SECRET=tabby_wh_$(random 16)" TABBY_DISPUTES=true
    sandbox_gateway TAMARA tamara "TAMARA_API_TOKEN=tamara_sandbox_$(random 32)" \
        "TAMARA_NOTIFICATION_TOKEN=$(random)" TAMARA_FAILED_REFUND_WORDS=failed
    sandbox_gateway MYFATOORAH myfatoorah "MYFATOORAH_API_TOKEN=$(random 32)" MYFATOORAH_COUNTRY=KWT \
        "MYFATOORAH_WEBHOOK_SECRET=$(random)"
    sandbox_gateway PAYU payu "PAYU_CHECKOUT_BASE=$outside/payu" "PAYU_MERCHANT_KEY=$(random 3)" "PAYU_SALT=$(random 16)" \
        PAYU_PRE_AUTHORIZE=1
    sandbox_gateway BILLDESK billdesk "BILLDESK_MERCHANT_ID=BDUAT$(random 3)" "BILLDESK_CLIENT_ID=bduat$(random 4)" \
        "BILLDESK_SIGNING_KEY=$(random 16)" BILLDESK_REFUND_FINAL_AFTER_HOURS=0 BILLDESK_REFUND_FAILED_CODES=0798
    sandbox_gateway CCAVENUE ccavenue "CCAVENUE_CHECKOUT_BASE=$outside/ccavenue" CCAVENUE_MERCHANT_ID=8972411 \
        "CCAVENUE_ACCESS_CODE=AVTE$(random 7)" "CCAVENUE_WORKING_KEY=$(random 16)" \
        "CCAVENUE_API_ACCESS_CODE=AVTA$(random 7)" "CCAVENUE_API_WORKING_KEY=$(random 16)" CCAVENUE_MANUAL_CAPTURE=true
    sandbox_gateway PHONEPE phonepe/apis/pg-sandbox "PHONEPE_CLIENT_ID=SANDBOX_$(random 6)" "PHONEPE_CLIENT_SECRET=$(random 16)" \
        "PHONEPE_WEBHOOK_USERNAME=payrail$(random 4)" "PHONEPE_WEBHOOK_PASSWORD=Pw1$(random 8)"
    sandbox_gateway PAYTM paytm "PAYTM_CHECKOUT_BASE=$outside/paytm" "PAYTM_MERCHANT_ID=Sandbox$(random 6)" \
        "PAYTM_MERCHANT_KEY=$(random 8)" PAYTM_WEBSITE_NAME=WEBSTAGING PAYTM_PASSBOOK=true
fi
echo "deploy/.env and deploy/secrets/ are there. Operators' tokens are signed by deploy/secrets/operator.pem, kid operator."
