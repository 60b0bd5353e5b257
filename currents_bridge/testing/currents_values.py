"""Realistic values for the fields of Currents events, drawn from a seeded `random.Random`."""

import json
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

Draw = Callable[[Random], Any]


def drawing(name: str, avro_type: Any, *, internal_id: bool = False) -> Draw:
    """Return a function that draws values for a field.

    Args:
        name: the field's name.
        avro_type: as in an Avro schema, without the null of a nullable field: a primitive, or an array of one.
        internal_id: draw an id as Braze uses inside, where the name says id, as in files of before mid-2021.

    Raises:
        ValueError: for other Avro types; give events of your own for those.
    """
    if isinstance(avro_type, dict) and avro_type["type"] == "array":
        items = avro_type["items"]
        nullable = isinstance(items, list)
        item = drawing(name, items[1] if nullable else items)
        return lambda r: [None if nullable and r.random() < 0.1 else item(r) for _ in range(r.randrange(4))]  # noqa: PLR2004
    if avro_type == "string":
        return object_id if internal_id else _string(name)
    if avro_type in {"float", "double"}:
        return _FLOATS.get(name, lambda r: round(r.uniform(0, 300), 2))
    if avro_type in {"int", "long"}:
        return _INTEGERS.get(name, lambda r: r.randrange(10_000))
    if avro_type == "boolean":
        return lambda r: r.random() < 0.5  # noqa: PLR2004
    raise ValueError(f"no values for field {name} of Avro type {avro_type!r}")


def uuid(r: Random) -> str:
    """Return a UUID, as Braze's event, device and API ids are."""
    digits = f"{r.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def object_id(r: Random) -> str:
    """Return 24 hexadecimal digits, as Braze's user ids and internal ids are."""
    return f"{r.getrandbits(96):024x}"


def _one_of(*choices: str) -> Draw:
    return lambda r: choices[int(r.random() * len(choices))]


def _string(name: str) -> Draw:
    if name in _STRINGS:
        return _STRINGS[name]
    for ending, draw in _BY_ENDING.items():
        if name.endswith(ending):
            return draw
    return _one_of(*(f"{name.replace('_', ' ')} {i}" for i in range(8)))


def _email(r: Random) -> str:
    if r.random() < 0.01:  # noqa: PLR2004 - as Braze's privacy settings replace it
        return "[REDACTED]"
    return f"{_FIRST_NAMES[r.randrange(8)].lower()}.{r.getrandbits(24)}@{_DOMAINS[r.randrange(4)]}"


def _json_object(r: Random) -> str:
    """Return the text of a JSON object with the kinds of values that apps send."""
    value = {
        "plan": _PLANS[r.randrange(4)],
        "amount": round(r.uniform(0, 500), 2),
        "items": r.randrange(9),
        "gift": r.random() < 0.5,  # noqa: PLR2004
        "note": _TEXTS[r.randrange(len(_TEXTS))],
        "tags": ["neu", "été"][: r.randrange(3)],
        "referrer": None,
        "address": {"city": "São Paulo", "zip": f"{r.randrange(100_000):05}"},
    }
    return json.dumps(value, ensure_ascii=r.random() < 0.5)  # noqa: PLR2004


def _link(r: Random) -> str:
    query = _QUERIES[r.randrange(len(_QUERIES))]
    return f"https://www.example.com/shop/{r.randrange(100_000)}?utm_source=braze&utm_medium=email&{query}"


_FIRST_NAMES: Sequence[str] = ("Ada", "Björn", "Chloé", "Đức", "Emil", "Fatma", "Grace", "Hana")
_DOMAINS: Sequence[str] = ("example.com", "example.org", "mail.example.net", "example.co.uk")
_PLANS: Sequence[str] = ("free", "team", "größer", 'the "pro" one')
_TEXTS: Sequence[str] = (
    "Your parcel is on its way 📦",
    'He said "now or never"',
    "Line one\nline two\twith a tab",
    "C:\\orders\\2026",
    "特別セール 🎉 本日限り",
    "plain words",
)
_QUERIES: Sequence[str] = (
    "utm_campaign=spring_sale",
    "utm_campaign=spring_sale&lid=x1y2z3",
    'q="blue+shoes"',
    "q=größe&lang=de",
    "next=%2Fcart%3Fstep%3D2",
)
_name = _one_of("Welcome series", "Spring sale 🌷", "Win-back (90 days)", 'A/B "bold" test', "Dernière chance – été")  # noqa: RUF001
_phone: Draw = lambda r: f"+1555{r.randrange(10_000_000):07}"  # noqa: E731

_STRINGS: Mapping[str, Draw] = {
    "user_id": object_id,
    "orphaned_by_id": object_id,
    "external_user_id": lambda r: f"customer-{r.getrandbits(40):011x}",
    "email_address": _email,
    "timezone": _one_of("America/New_York", "Europe/Berlin", "Asia/Tokyo", "UTC"),
    "platform": _one_of("ios", "android", "web"),
    "os_version": _one_of("17.5.1", "14", "Windows 11"),
    "sdk_version": _one_of("9.2.0", "30.1.1", "5.3.2"),
    "device_model": _one_of("iPhone15,2", "Pixel 8", "SM-S918B", "Mac"),
    "device_class": _one_of("Phone", "Desktop", "Tablet"),
    "device_os": _one_of("iOS", "Android", "Windows"),
    "browser": _one_of("Chrome", "Mobile Safari", "Firefox"),
    "user_agent": _one_of(
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0",
    ),
    "mailbox_provider": _one_of("Gmail", "Yahoo! Mail", "Outlook"),
    "esp": _one_of("SparkPost", "SendGrid", "Amazon SES"),
    "ip_pool": _one_of("main_pool", "promotional"),
    "sending_ip": lambda r: f"192.0.2.{r.randrange(256)}",
    "from_domain": _one_of("mail.example.com", "news.example.org"),
    "url": _link,
    "endpoint_url": _link,
    "short_url": lambda r: f"https://brz.example/{r.getrandbits(32):x}",
    "media_urls": lambda r: f"https://media.example.com/{r.getrandbits(64):x}.jpg",
    "link_alias": _one_of("header", "call_to_action", "footer"),
    "country": _one_of("US", "DE", "JP", "BR"),
    "language": _one_of("en", "de", "ja", "pt"),
    "gender": _one_of("F", "M", "O"),
    "currency": _one_of("USD", "EUR", "JPY"),
    "dob": _one_of("1990-04-01", "1985-12-24"),
    "first_name": _one_of(*_FIRST_NAMES),
    "message_body": _one_of(*_TEXTS),
    "abort_log": _one_of(*_TEXTS),
    "name": _one_of("Bought tea", "Finished level", "Rated 5 ★", 'Clicked "later"'),
    "properties": _json_object,
    "custom_attributes": _json_object,
    "tool_arguments": _json_object,
    "flow_response_json": _json_object,
    "message_extras": _json_object,
}
_BY_ENDING: Mapping[str, Draw] = {"phone_number": _phone, "_id": uuid, "id": uuid, "_name": _name, "token": object_id}
_FLOATS: Mapping[str, Draw] = {  # six digits at most, so that the 32 bits of an Avro float keep them
    "latitude": lambda r: round(r.uniform(-90, 90), 4),
    "longitude": lambda r: round(r.uniform(-180, 180), 3),
}
_INTEGERS: Mapping[str, Draw] = {
    "time_custom_attributes": lambda r: 1_700_000_000 + r.randrange(10_000_000),
    "time_ms": lambda r: 1_700_000_000_000 + r.randrange(10_000_000_000),
    "http_status_code": lambda r: (400, 404, 500, 503)[r.randrange(4)],
}
