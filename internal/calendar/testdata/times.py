#!/usr/bin/env python3
"""Makes times.txt: starts of schedules as a slow walk in Python finds them.

It goes from minute to minute, and asks Python's zoneinfo what the clock shows. A reading
comes in the first minute in which the clock shows it or a later one.
"""
import datetime as dt
from zoneinfo import ZoneInfo

CASES = [  # cron text, zone, from when on (UTC), days
    ("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00", 4),
    ("30 2 * * *", "Europe/Berlin", "2026-10-23T12:00", 4),
    ("*/15 1-3 * * *", "Europe/Berlin", "2026-03-28T20:00", 1),
    ("*/30 * * * *", "Europe/Berlin", "2026-10-24T22:00", 1),
    ("30 2 * * *", "America/New_York", "2026-03-07T00:00", 3),
    ("30 1 * * *", "America/New_York", "2026-10-31T00:00", 3),
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-02T00:00", 4),
    ("45 1 * * *", "Australia/Lord_Howe", "2026-04-03T00:00", 4),
    ("*/10 1-2 * * *", "Australia/Lord_Howe", "2026-10-03T10:00", 1),
    ("0 2 * * *", "Pacific/Apia", "2011-12-28T00:00", 5),
    ("0 12 30 12 *", "Pacific/Apia", "2011-12-20T00:00", 20),
    ("0 12 * * fri", "Pacific/Apia", "2011-12-20T00:00", 20),
    ("0 0 * * *", "America/Sao_Paulo", "2018-11-02T00:00", 4),
    ("0 0 * * *", "America/Sao_Paulo", "2018-02-16T00:00", 4),
    ("0 6 * * *", "Pacific/Kwajalein", "1993-08-18T00:00", 6),
    ("45 23 * * *", "Asia/Pyongyang", "2018-05-02T00:00", 4),
    ("30 1 * * *", "Antarctica/Troll", "2026-03-27T00:00", 4),
    ("30 2 * * *", "Antarctica/Troll", "2026-10-23T00:00", 4),
    ("30 1 * * *", "Europe/Dublin", "2026-10-23T00:00", 4),
    ("0 3 29 2 *", "UTC", "2023-01-01T00:00", 1900),
    ("59 23 31 12 *", "Asia/Kathmandu", "2026-12-01T00:00", 400),
    ("0 0 1 1 *", "Pacific/Auckland", "2026-12-01T00:00", 400),
    ("0 4 * * sun#1", "Europe/Berlin", "2026-01-01T00:00", 100),
    ("0 4 * * fri#l", "Europe/Berlin", "2026-01-01T00:00", 100),
    ("0 4 * * mon#5", "Europe/Berlin", "2026-01-01T00:00", 300),
    ("0 4 l * *", "Europe/Berlin", "2024-01-01T00:00", 150),
    ("0 4 1,l 2-3 *", "Europe/Berlin", "2025-01-01T00:00", 150),
    ("5 22-2/2 * * fri-mon", "America/Caracas", "2016-04-28T00:00", 6),
    ("0 12 30-2 nov-feb *", "Africa/Casablanca", "2026-10-01T00:00", 200),
    ("0 3 * * mon-fri", "Asia/Tehran", "2022-03-20T00:00", 5),
    ("20 4 13 * *", "Africa/Cairo", "2026-01-01T00:00", 200),
    ("0 0 * * *", "Asia/Beirut", "2026-03-27T00:00", 4),
    ("0 0 * * 7", "Africa/El_Aaiun", "2026-02-10T00:00", 60),
    ("30 23 * * *", "America/Nuuk", "2024-03-29T00:00", 4),
]
NAMES = {n: i + 1 for i, n in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split())}
NAMES |= {n: i for i, n in enumerate("sun mon tue wed thu fri sat".split())}


def values(text, low, high):
    out = set()
    for part in text.split(","):
        if part == "l" or "#" in part:
            continue
        span, _, step = part.partition("/")
        if span == "*":
            a, b = low, high
        else:
            a, _, b = span.partition("-")
            a = NAMES.get(a) if a in NAMES else int(a)
            b = a if b == "" else NAMES.get(b) if b in NAMES else int(b)
        size = high - low + 1
        n = (b - a) % size
        out |= {low + (a - low + i) % size for i in range(0, n + 1, int(step or 1))}
    return out


def matcher(text):
    minute, hour, mday, month, wday = text.split()
    minutes, hours, months = values(minute, 0, 59), values(hour, 0, 23), values(month, 1, 12)
    days, wdays = values(mday, 1, 31), {d % 7 for d in values(wday.replace("7", "0"), 0, 6)}
    last = "l" in mday.split(",")
    nth = [p.split("#") for p in wday.split(",") if "#" in p]

    def match(c):
        if c.minute not in minutes or c.hour not in hours or c.month not in months:
            return False
        tomorrow = c + dt.timedelta(1)
        if c.day not in days and not (last and tomorrow.day == 1):
            return False
        w = c.isoweekday() % 7
        if w in wdays:
            return True
        week = (c + dt.timedelta(7)).month != c.month
        return any(NAMES[d] == w and (n == "l" and week or n == str((c.day + 6) // 7)) for d, n in nth)

    return match


print("# Made by times.py. A line: cron text; zone; after; starts, in UTC.")
for text, zone, start, days in CASES:
    match, tz = matcher(text), ZoneInfo(zone)
    minute = dt.timedelta(minutes=1)
    t = dt.datetime.fromisoformat(start).replace(tzinfo=dt.timezone.utc)
    end = t + dt.timedelta(days)
    high = t.astimezone(tz).replace(tzinfo=None)
    found = []
    while t < end:
        t += minute
        now = t.astimezone(tz).replace(tzinfo=None)
        comes = False
        while high < now:
            high += minute
            comes = comes or match(high)
        if comes:
            found.append(t.strftime("%Y-%m-%dT%H:%MZ"))
    print(f"{text}; {zone}; {start}Z; {' '.join(found)}")
