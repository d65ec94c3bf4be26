"""Federations across machines, on Flower, which carries the messages; the rounds are those of `h2tune.federation`.

`files`, `load`, `card`, `deploy` and `member` (without `member.app`) do not import flwr.
"""

from __future__ import annotations
