"""Positive control: what MiniLM learns in T must reach a twin whose hidden units are permuted.

    python benchmarks/transfer/control.py --runs 5

The twin computes the same function with its residual stream, attention heads, head units and MLP units in another
order. T is trained on the source and given untrained to the twin, in anchored frames (each model's own, from its own
outputs on public sentences), in random frames of the twin's own, and in the source's very frames copied as numbers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from anchored import (
    anchored_frames,
    carrying,
    common_coordinates,
    probe,
    random_frames,
    train_middles,
    view_basis,
)
from clients import Client, load_texts
from pairs import LABELS

from h2tune.evaluation.statistics import mean_interval


@torch.no_grad()
def permute(client: Client, seed: int) -> None:
    """Reorder a BERT encoder's hidden units in place so that it computes the same function."""
    config, g = client.net.config, torch.Generator().manual_seed(seed)
    width, heads = config.hidden_size, config.num_attention_heads
    stream = torch.randperm(width, generator=g)

    def reorder(layer: torch.nn.Module, rows: torch.Tensor, columns: torch.Tensor | None = None) -> None:
        layer.weight.copy_(layer.weight[rows] if columns is None else layer.weight[rows][:, columns])
        layer.bias.copy_(layer.bias[rows])

    embeddings = client.net.embeddings
    for table in (
        embeddings.word_embeddings,
        embeddings.position_embeddings,
        embeddings.token_type_embeddings,
    ):
        table.weight.copy_(table.weight[:, stream])
    reorder(embeddings.LayerNorm, stream)
    for block in client.blocks:
        units = torch.arange(width).view(heads, -1)[torch.randperm(heads, generator=g)]
        inner = units[:, torch.randperm(units.shape[1], generator=g)].flatten()
        mlp = torch.randperm(config.intermediate_size, generator=g)
        attention = block.attention
        for layer in (attention.self.query, attention.self.key, attention.self.value):
            reorder(layer, inner, stream)
        reorder(attention.output.dense, stream, inner)
        reorder(attention.output.LayerNorm, stream)
        reorder(block.intermediate.dense, mlp, stream)
        reorder(block.output.dense, stream, mlp)
        reorder(block.output.LayerNorm, stream)


def main() -> None:
    """Run the control and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("-k", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    texts = load_texts()
    source, twin = (Client("minilm", torch.float32) for _ in range(2))
    permute(twin, seed=1)
    states = {s: source.prepare([e.text for e in texts.labelled[s]]) for s in texts.labelled}
    public = source.prepare(texts.public)
    features = {name: m.public_features(public) for name, m in (("source", source), ("twin", twin))}
    sort = [features[n]["final/mean"].sort(1).values for n in ("source", "twin")]
    print(
        f"twin's outputs, sorted, differ from the source's by at most {(sort[0] - sort[1]).abs().max():.1e}"
    )
    z = common_coordinates([view_basis(f["final/mean"]) for f in features.values()], args.k)
    anchored = {name: anchored_frames(f, z) for name, f in features.items()}
    drawn = {"source": random_frames(anchored["source"], 10), "twin": random_frames(anchored["twin"], 11)}
    # The same numbers in both, as when every client starts from one seed; centres stay each model's own.
    copied = {k: f._replace(center=anchored["twin"][k].center) for k, f in drawn["source"].items()}

    still = {
        name: (m.features(states["pool"]), m.features(states["test"]))
        for name, m in (("source", source), ("twin", twin))
    }

    rows: list[dict[str, float]] = []
    for run in range(args.runs):
        chosen = np.random.default_rng(run).choice(len(states["source"]), LABELS, replace=False)
        labels = texts.labels("source")[chosen]
        given = [states["source"][i] for i in chosen]

        def score(features: tuple[torch.Tensor, torch.Tensor], run: int = run) -> float:
            return probe(features[0], texts.labels("pool"), features[1], texts.labels("test"), seed=run)

        def measure(client: Client, frames: dict, middles: dict, scale: float = 1.0) -> float:
            with carrying(client, frames, middles, scale):
                return score((client.features(states["pool"]), client.features(states["test"])))

        t = train_middles(source, anchored["source"], given, labels, seed=run)
        r = train_middles(source, drawn["source"], given, labels, seed=run)
        rows.append(
            {
                "source, zero T": score(still["source"]),
                "source, T in anchored frames": measure(source, anchored["source"], t),
                "source, T in random frames": measure(source, drawn["source"], r),
                "twin, zero T": score(still["twin"]),
                "twin, T in anchored frames": measure(twin, anchored["twin"], t),
                "twin, −T in anchored frames": measure(twin, anchored["twin"], t, -1.0),
                "twin, T in random frames of its own": measure(twin, drawn["twin"], r),
                "twin, T in the source's random frames": measure(twin, copied, r),
            }
        )
        print(run, {key: round(value, 4) for key, value in rows[-1].items()}, flush=True)
        (args.out / "control.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


def table(rows: list[dict[str, float]]) -> str:
    """Return a Markdown table with 95 % t intervals over runs of the gain over zero T of the same model."""
    lines = [
        "| model and frames | accuracy | gain over zero T | share of the source's gain |",
        "|---|---|---|---|",
    ]
    for name in rows[0]:
        zero, of = f"{name.split(',')[0]}, zero T", "random" if "random" in name else "anchored"
        gain = np.array([r[name] - r[zero] for r in rows])
        full = np.mean([r[f"source, T in {of} frames"] - r["source, zero T"] for r in rows])
        mean, low, high = 100 * np.array(mean_interval(gain))
        cells = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}] | {100 * gain.mean() / full:.0f} %"
        lines.append(f"| {name} | {100 * np.mean([r[name] for r in rows]):.1f} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
