"""The demo: real flights of New York's airports, as a user of tidings would write it.

Six small apps share one store, and know each other only through the messages of `messages.py`:

```
feed ── commands ──▶ flights ── events ──┬──▶ board      who flies, who is late, who was cancelled
                                         ├──▶ alerts     mail through a gateway that fails now and then
                                         └──▶ aircraft   a late arrival makes the next departure late
names ── states of carriers and airports ───▶ board      replicas: names at hand while their owner is away
```

Read `messages.py` and `flights.py` first, then the reader that interests you; `main.py` puts them together.
"""
