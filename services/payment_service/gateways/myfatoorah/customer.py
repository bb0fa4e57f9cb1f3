"""What MyFatoorah is told of the shopper. Nothing of it is needed, so what does not fit is left out."""

from __future__ import annotations

import re

from services.payment_service.domain.models import Customer

LONGEST_NAME = 100
_SPACES = re.compile(r"\s+")
_EMAIL = re.compile(r"[!-?A-~]{1,64}@[A-Za-z0-9.-]{1,180}\.[A-Za-z]{2,24}")

_COUNTRY_CODES = ("965", "973", "962", "968", "971", "966", "974", "20", "91", "44", "1")
"""The eight countries that MyFatoorah serves, and a few whose shoppers buy there."""


def fields_of(customer: Customer) -> dict[str, str]:
    email = customer.email.strip()
    found = {"CustomerName": name_of(customer)}
    if _EMAIL.fullmatch(email):
        found["CustomerEmail"] = email
    return found | _mobile(customer.phone)


def name_of(customer: Customer) -> str:
    """Letters and digits of any script, and single spaces: MyFatoorah's own library sends no other characters."""
    letters = "".join(each if each.isalnum() else " " for each in customer.name)
    return _SPACES.sub(" ", letters).strip()[:LONGEST_NAME].strip() or "Customer"


def _mobile(phone: str | None) -> dict[str, str]:
    """Country and number apart, the number of at most eleven digits."""
    digits = re.sub(r"[ ().-]", "", phone or "")
    if not re.fullmatch(r"\+[0-9]{6,15}", digits):
        return {}
    code = next((each for each in _COUNTRY_CODES if digits.startswith("+" + each)), None)
    number = digits[1 + len(code or "") :]
    return {"MobileCountryCode": code, "CustomerMobile": number} if code and 4 <= len(number) <= 11 else {}
