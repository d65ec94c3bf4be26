"""A member that answers for another one, in each round in another way.

The other member leaks what helps most, before it answers: identifier and number of its message, and its answer.

| round | the forged answer |
|---|---|
| 0 | the other's update, five thousand times as large, with the right number, signed with the forger's key |
| 1 | the other's own answer of round 0, signed by itself |
| 2 | the forger's own answer, signed by itself, in the other's name |
"""

import contextlib
import dataclasses
import json
import time
from pathlib import Path

FORGER, OTHER = "news", "films"
SECONDS = 180.0
"""The most that one waits for the other."""


def leaks(round_number: int, name: str) -> Path:
    """Return the folder of what a member leaked in a round; the working folder is the member's."""
    return Path.cwd().parents[1] / "leaks" / str(round_number) / name


def until(file: Path) -> None:
    end = time.monotonic() + SECONDS
    while not file.exists():
        if time.monotonic() > end:
            raise TimeoutError(str(file))
        time.sleep(0.2)


def leak(module):
    """Store each answer in training; the other member sends it after the forged one is sent."""
    from h2tune.flower.messages import parts

    respond = module.respond

    def leaking(kind, message, context):
        answer = respond(kind, message, context)
        folder = leaks(int(message.metadata.group_id), Path.cwd().name) if kind == "train" else None
        if folder is not None and not (folder / "facts.json").exists():
            head, tensors = parts(answer.content)
            record = answer.content["head"]
            facts = {"head": head, "nonce": record["nonce"], "signature": record["signature"]}
            facts |= {"message": message.metadata.message_id, "node": message.metadata.dst_node_id}
            folder.mkdir(parents=True)
            (folder / "tensors").write_bytes(tensors)
            (folder / "facts.json.new").write_text(json.dumps(facts))
            (folder / "facts.json.new").rename(folder / "facts.json")
            if folder.name == OTHER:
                until(folder / "forged")
        return answer

    module.respond = leaking


def forged(round_number: int):
    """Return the content of the forged answer of a round."""
    from h2tune.federation.messages import from_bytes, to_bytes
    from h2tune.flower.messages import wrapped
    from h2tune.flower.seal import NONCE, SIGNATURE, number, seal

    source = {0: leaks(0, OTHER), 1: leaks(0, OTHER), 2: leaks(2, FORGER)}[round_number]
    facts, tensors = json.loads((source / "facts.json").read_text()), (source / "tensors").read_bytes()
    if round_number == 0:
        update = from_bytes(tensors)
        large = {n: 5000 * t if n.startswith("delta.") else t for n, t in update.tensors.items()}
        content = wrapped(facts["head"], to_bytes(dataclasses.replace(update, tensors=large)))
        asked = wrapped("{}", None)
        number(asked)
        asked["head"][NONCE] = facts["nonce"]
        return seal(content, asked, Path("node"))
    content = wrapped(facts["head"], tensors)
    content["head"][NONCE], content["head"][SIGNATURE] = facts["nonce"], facts["signature"]
    return content


def answer_for(message, round_number: int):
    """Return the forged answer of a round as Flower's message, from the node of the other member."""
    from flwr.app import Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    for key in ("_run_id", "_node_id", "_task_id"):  # Flower sets them where it expects messages to be made
        setattr(TaskIdentity, key, 1)
    facts = json.loads((leaks(round_number, OTHER) / "facts.json").read_text())
    asked = Message(
        RecordDict(), dst_node_id=facts["node"], message_type="train", group_id=str(round_number), ttl=60.0
    )
    changes = {"_run_id": message.metadata.run_id, "_message_id": facts["message"], "_src_node_id": 1}
    asked.metadata.__dict__.update(changes)
    answer = Message(forged(round_number), reply_to=asked)
    answer.metadata.__dict__["_message_id"] = answer.object_id
    return answer


def forge(module):
    """Let the forger's node send a forged answer, over its own authenticated connection, before its own one."""
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

    connect = module.http_request_response

    def push(answer, send, push_object):
        wanted, session = send(answer, get_object_tree(answer), 0.0)
        objects = get_all_nested_objects(answer)
        for identifier in wanted:
            push_object(answer.metadata.run_id, session, identifier, objects[identifier].deflate())

    @contextlib.contextmanager
    def forging(*arguments):
        with connect(*arguments) as calls:
            send, push_object = calls[2], calls[6]

            def sending(message, tree, seconds):
                number = message.metadata.group_id
                if (
                    message.metadata.message_type == "train"
                    and not (mark := leaks(int(number), OTHER) / "forged").exists()
                ):
                    until(mark.with_name("facts.json"))
                    push(answer_for(message, int(number)), send, push_object)
                    mark.touch()
                    print(f"forged: round {number}", flush=True)
                return send(message, tree, seconds)

            yield (*calls[:2], sending, *calls[3:])

    if Path.cwd().name == FORGER:
        module.http_request_response = forging


CHANGES = {"h2tune.flower.member.app": leak, "flwr.supernode.fleet_http_connection": forge}
