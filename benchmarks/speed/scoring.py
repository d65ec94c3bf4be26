"""Scoring labels with an h2tune adapter beside bare forward passes of the model without one.

    python benchmarks/speed/scoring.py [--models all-minilm-l6-v2 …] [--examples 128] [--repeats 5]

Film reviews of all lengths, in batches of 32 of like length; bare passes compute the same positions.
"""

from __future__ import annotations

import argparse

import clients
from timing import Spread, in_turn, ratios, seconds, table


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(clients.MODELS))
    parser.add_argument("--examples", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for model in options.models:
        values = measure(model, options.examples, options.repeats)
        rows.append(
            [
                model,
                Spread.of(values["bare"]).text(2),
                Spread.of(values["h2tune"]).text(2),
                ratios(values, "h2tune", "bare").text(),
            ]
        )
        print(rows[-1], flush=True)
    print(table(["model", "bare forward, s", "h2tune, s", "ratio"], rows))


def measure(model: str, examples: int, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of both, turn by turn."""
    from h2tune.evaluation.evaluate import evaluate

    federation = clients.federation_of(
        model, "h2tune", steps=1, rank=8, shared_rank=16, changes="", examples=examples
    )
    client, strategy = clients.client_of(federation)
    base, tokenizer = clients.base_of(model, client.kind)
    adapted = clients.attached(base, client, strategy)
    encoded = client.encoded("scored", tokenizer)

    def scored() -> object:
        return evaluate(
            adapted.model,
            client.task,
            client.scored,
            tokenizer,
            causal=client.causal,
            batch_size=32,
            encoded=encoded,
        )

    def bare() -> object:
        return clients.bare_scores(base.eval(), client, encoded, tokenizer, 32)

    bare(), scored()
    return in_turn({"bare": lambda: seconds(bare), "h2tune": lambda: seconds(scored)}, repeats)


if __name__ == "__main__":
    main()
