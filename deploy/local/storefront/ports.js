// What the shop itself knows about its shelves: which harbour trades in which currency, and what kind of thing each product is.

export const PORTS = {
  USD: { town: "New York", country: "United States" },
  EUR: { town: "Trieste", country: "Italy" },
  INR: { town: "Kochi", country: "India" },
  SAR: { town: "Jeddah", country: "Saudi Arabia" },
  AED: { town: "Dubai", country: "United Arab Emirates" },
  KWD: { town: "Kuwait City", country: "Kuwait" },
  JPY: { town: "Uji", country: "Japan" },
};

export function townOf(currency) {
  return PORTS[currency]?.town ?? currency;
}

export const CATEGORIES = { coffee: "Coffee", tea: "Tea", brewing: "Brewing" };

const CATEGORY_OF = {
  "red-hook-espresso": "coffee", "trieste-blend": "coffee", "monsoon-malabar": "coffee", "khawlani-light": "coffee", "cardamom-qahwa": "coffee",
  "masala-chai": "tea", "karak-tin": "tea", "uji-matcha": "tea", "yame-sencha": "tea",
  "harbor-dripper": "brewing", "moka-pot": "brewing", "brass-dallah": "brewing", "gooseneck-kettle": "brewing", "finjan-set": "brewing", "nambu-tetsubin": "brewing",
};

export function categoryOf(sku) {
  return CATEGORY_OF[sku] ?? null;
}

const COUNTRY_CODES = [
  "AE", "AT", "AU", "BE", "BH", "BR", "CA", "CH", "CZ", "DE", "DK", "EG", "ES", "FI", "FR", "GB", "GR", "HU", "IE", "IN", "IT", "JO", "JP",
  "KR", "KW", "MX", "MY", "NL", "NO", "NZ", "OM", "PL", "PT", "QA", "RO", "SA", "SE", "SG", "TH", "TR", "US", "ZA",
];

/** Country codes with English names, in the order of the names. */
export function countries() {
  const names = new Intl.DisplayNames(["en"], { type: "region" });
  return COUNTRY_CODES.map((code) => ({ code, name: names.of(code) })).sort((a, b) => a.name.localeCompare(b.name));
}
