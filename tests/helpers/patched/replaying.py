"""A coordinator that sends every message of a round twice, those of earlier rounds again, and one of a future round."""


def replay(module):
    from h2tune.flower.messages import TRAIN

    Message = module.Message
    push, earlier = module.TolerantGrid.push, []

    def again(self, recipient, key, old, round_number):
        content, metadata = old.content, old.metadata
        push(
            self,
            Message(
                content,
                dst_node_id=metadata.dst_node_id,
                message_type=TRAIN,
                group_id=str(round_number),
                ttl=metadata.ttl,
            ),
            recipient,
            key,
        )

    def replaying(self, message, recipient, key=b""):
        identifier = push(self, message, recipient, key)
        if message.metadata.message_type == TRAIN:
            earlier.append(message)
            for old in earlier:
                if old.metadata.dst_node_id == message.metadata.dst_node_id:
                    again(self, recipient, key, old, int(old.metadata.group_id))
            again(self, recipient, key, message, int(message.metadata.group_id) + 1)
        return identifier

    module.TolerantGrid.push = replaying


CHANGES = {"h2tune.flower.coordinator.tolerant_grid": replay}
