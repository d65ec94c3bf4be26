"""The text files of a party's folder: its commands, and the reverse proxy's configuration."""

from __future__ import annotations

from collections.abc import Sequence

ENVIRONMENT = """export FLWR_HOME="$PWD/flwr" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1"""


def member(federation: str, name: str, superlink: str) -> str:
    """Return a member's README."""
    return f"""# {name} in the federation {federation}

Everything in this folder belongs to {name}. `node` is your private key, and `member.toml` names your model and data:
neither is for anybody else. Your examples, your adapter and your model never leave this machine; what leaves it in a
round is listed, tensor by tensor, in `private/…/events.jsonl`.

If this folder was made by someone else, make a key of your own and send the coordinator `node.pub`:

    rm node node.pub && ssh-keygen -t ecdsa -b 384 -N "" -f node

Type, in this folder, with h2tune installed (`pip install 'h2tune[flower]'`) and its `bin` on the PATH:

    {ENVIRONMENT.replace(chr(10), chr(10) + "    ")}
    h2tune deploy check member.toml
    flower-supernode --superlink {superlink} --root-certificates tls/ca.crt \\
      --auth-supernode-private-key node --node-config "h2tune=\\"$PWD/member.toml\\""

It answers until you stop it with Ctrl-C. Flower starts a process for every message, which imports all libraries and
loads the model anew. To spare each round that time, leave this running beside it, in a second terminal; it keeps the
model in memory:

    h2tune deploy worker member.toml

If it says `Failed to activate` after a crash, the coordinator still takes the
old one for alive: start it again after a minute. Who runs the coordinator's machine decides which code runs here, as
this user: give it an account that can read your model and data and nothing else.
"""


def coordinator(federation: str, names: Sequence[str], host: str, port: int, control_port: int) -> str:
    """Return the coordinator's README."""
    register = "\n".join(
        f"    flwr supernode register keys/{name}.pub h2tune --name {name}" for name in names
    )
    return f"""# The coordinator of {federation}

`tls/ca.key` and `tls/server.key` are private. Members need their folder and nothing else. Members reach {host}:{port};
open that port and no other. Port {control_port} is Flower's own, which asks nobody for a password: it listens on the
loopback interface alone, and nginx passes on only what members' nodes need (`/v1/fleet/`). If this folder was moved,
put its new place into `flwr/config.toml`.

Type, in this folder, with h2tune installed (`pip install 'h2tune[flower]'`), its `bin` on the PATH, and nginx:

    {ENVIRONMENT.replace(chr(10), chr(10) + "    ")}
    nginx -p "$PWD" -c nginx.conf
    flower-superlink --host 127.0.0.1 --port {control_port} --database flwr/state.db --enable-supernode-auth \\
      --ssl-ca-certfile tls/ca.crt --ssl-certfile tls/server.crt --ssl-keyfile tls/server.key

and in a second terminal, in the same folder with the same exports, once:

{register}

and when the members' nodes are running:

    flwr run app h2tune --run-config "coordinator=\\"$PWD/coordinator.toml\\"" --stream

The run is in `run/`. The same command goes on with a run that was interrupted, wherever it was.
"""


def nginx(port: int, control_port: int) -> str:
    """Return the configuration of a proxy that passes the fleet's paths alone to the loopback interface."""
    return f"""pid nginx.pid;
error_log stderr;
events {{ }}
http {{
  access_log off;
  client_body_temp_path tmp-body;
  proxy_temp_path tmp-proxy;
  fastcgi_temp_path tmp-fastcgi;
  uwsgi_temp_path tmp-uwsgi;
  scgi_temp_path tmp-scgi;
  server {{
    listen {port} ssl;
    ssl_certificate tls/server.crt;
    ssl_certificate_key tls/server.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    client_max_body_size 16m;   # Flower cuts tensors into pieces of 5 MB
    location /v1/fleet/ {{
      proxy_pass https://127.0.0.1:{control_port};
      proxy_ssl_trusted_certificate tls/ca.crt;
      proxy_ssl_verify on;
      proxy_ssl_name localhost;   # nginx compares with names alone, never with a certificate's addresses
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_read_timeout 120s;
    }}
    location / {{ return 404; }}
  }}
}}
"""
