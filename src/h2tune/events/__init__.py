"""Events: what a run records in `events.jsonl`, one JSON object per line; the report reads nothing else.

`EVENTS` maps each event's name to its type. Rounds count from 0. Sizes are in bytes, durations in seconds, accuracies
are fractions from 0 to 1. Keys marked `NotRequired` are absent where they do not apply; the docstring says when.

Types describe what h2tune writes. What is read back may be older, cut off, or (with Flower) sent by another party, so
`read_events` returns plain mappings and readers must expect missing keys and values of other types.

| file | what it holds |
|---|---|
| `run.py` | types of a run's events |
| `comparison.py` | the type of a comparison's event |
| `schema.py` | all events by name, meanings of warnings, a check of an event |
| `reading.py` | reading `events.jsonl`, without what was taken back |
"""

from h2tune.events.reading import Event, is_taken_back, read_events, round_of_unit, standing
from h2tune.events.run import LESSON_NUMBERS
from h2tune.events.schema import EVENTS, WARNINGS, AnyEvent, check_event

__all__ = [
    "EVENTS",
    "LESSON_NUMBERS",
    "WARNINGS",
    "AnyEvent",
    "Event",
    "check_event",
    "is_taken_back",
    "read_events",
    "round_of_unit",
    "standing",
]
