"""All events by name, what each warning means, and the comparison of an event with its type."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from typing_extensions import is_typeddict

from h2tune.errors import H2TuneError
from h2tune.events import comparison, run

AnyEvent = (
    run.RunStarted
    | run.BasisAgreed
    | run.LessonPrepared
    | run.ClientTrained
    | run.Evaluated
    | run.ClientFailed
    | run.RoundWarning
    | run.Aggregated
    | run.RoundsTakenBack
    | run.RunFinished
    | comparison.Compared
)

EVENTS: dict[str, type] = {
    "run_started": run.RunStarted,
    "basis_agreed": run.BasisAgreed,
    "lesson_prepared": run.LessonPrepared,
    "client_trained": run.ClientTrained,
    "evaluated": run.Evaluated,
    "client_failed": run.ClientFailed,
    "warning": run.RoundWarning,
    "aggregated": run.Aggregated,
    "rounds_taken_back": run.RoundsTakenBack,
    "run_finished": run.RunFinished,
    "compared": comparison.Compared,
}
"""Every event by its name, in the order of a run."""

WARNINGS = {
    "download_not_loaded": "the client's model does not hold what the server sent",
    "did_not_move": "a kind of parameter did not change in the round",
    "no_gradient": "trained parameters got no gradient",
    "upload_differs": "a tensor was not sent as the model learned it",
    "nothing_learned": "the shared part did not change in training",
    "aggregate_unchanged": "the server's state did not change in the round",
    "directions_copied": "a client's label directions are the same as another's",
    "view_at_chance": "a client's view of the public texts agrees with the others' no more than a random one",
    "one_label": "all examples that a client trains on have the same label",
    "texts_cut": "more than a tenth of a client's texts lose more than half of their length",
    "update_far": "the norm of an update is far above the median of the others",
    "update_refused": "the update is not what this client may send",
    "sent_again": "a message to the client got no answer and was sent again",
    "late_update": "an update arrived after its round was over",
}
"""What each code of a warning means."""


def check_event(event: Mapping[str, Any]) -> None:
    """Compare an event with its type in `EVENTS`: every key, every value, and nothing beyond.

    For tests, and for what members send to a coordinator.

    Raises:
        H2TuneError: The event is unknown, or a key is missing, unknown or of another type.
    """
    from pydantic import ValidationError

    name = event.get("event", "")
    if name not in EVENTS:
        raise H2TuneError("this event is not in the schema", where=str(name))
    try:
        _adapter(name).validate_python(event)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise H2TuneError(found, where=name) from None


@cache
def _adapter(name: str) -> Any:
    from pydantic import TypeAdapter

    for kind in (*vars(run).values(), *vars(comparison).values()):
        if is_typeddict(kind):
            kind.__pydantic_config__ = {"strict": True, "extra": "forbid"}
    return TypeAdapter(EVENTS[name])
