"""Federations across machines, on Flower: only messages; the round loop and the client's round are h2tune's own.

`files`, `member` and `roster` know nothing of flwr; `messages`, `channel`, `server_app` and `client_app` import it.
`client_app` hands messages to `worker`, or to `duties` where there is none.
"""

from __future__ import annotations
