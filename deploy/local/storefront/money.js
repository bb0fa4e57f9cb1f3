// Money arrives as integer minor units and a currency; it is shown by moving the decimal point in the digits, never by dividing.

// ISO 4217 exponents that are not two.
const EXPONENTS = {
  BIF: 0, CLP: 0, DJF: 0, GNF: 0, ISK: 0, JPY: 0, KMF: 0, KRW: 0, PYG: 0, RWF: 0, UGX: 0, VND: 0, VUV: 0, XAF: 0, XOF: 0, XPF: 0,
  BHD: 3, IQD: 3, JOD: 3, KWD: 3, LYD: 3, OMR: 3, TND: 3,
};

const formatters = new Map();

function formatter(currency, digits) {
  if (!formatters.has(currency)) {
    formatters.set(currency, new Intl.NumberFormat("en", {
      style: "currency", currency, currencyDisplay: "narrowSymbol", minimumFractionDigits: digits, maximumFractionDigits: digits,
    }));
  }
  return formatters.get(currency);
}

/** The amount in major units as exact decimal text: 12500 KWD is "12.500". */
export function decimalText({ amount_minor: amountMinor, currency }) {
  const digits = EXPONENTS[currency] ?? 2;
  const whole = BigInt(amountMinor);
  const sign = whole < 0n ? "-" : "";
  const padded = (whole < 0n ? -whole : whole).toString().padStart(digits + 1, "0");
  return digits === 0 ? sign + padded : `${sign}${padded.slice(0, -digits)}.${padded.slice(-digits)}`;
}

/** The amount as a shopper reads it: "KWD 12.500", "¥3,200", "€14.90". */
export function formatMoney(money) {
  const digits = EXPONENTS[money.currency] ?? 2;
  return formatter(money.currency, digits).format(decimalText(money));
}

export function times(money, quantity) {
  return { amount_minor: Number(BigInt(money.amount_minor) * BigInt(quantity)), currency: money.currency };
}

export function sum(amounts, currency) {
  const total = amounts.reduce((running, money) => running + BigInt(money.amount_minor), 0n);
  return { amount_minor: Number(total), currency };
}
