# An engineer of a consortium: folders for all parties, a member that comes later, a run, its audit and its status.
set -eu

cat > federation.toml <<'END'
name = "wards"

[server]
rounds = 2
min_clients = 2

[train]
local_steps = 2
batch_size = 4
learning_rate = 1e-2

[data]
train = 8
test = 4

[basis]
kind = "free"

[[client]]
name = "north"
model = "./models/decoder"
rank = 4
task = { file = "north.jsonl", prompt = "text : {words} answer :", answer = "label", labels = ["yes", "no"] }

[[client]]
name = "south"
model = "./models/encoder"
rank = 8
task = { file = "south.jsonl", prompt = "text : {words} answer :", answer = "label", labels = ["yes", "no"] }
END

h2tune deploy init federation.toml parties --host 127.0.0.1 --port 19443 --control-port 19091

cat >> federation.toml <<'END'

[[client]]
name = "west"
model = "./models/decoder"
rank = 4
task = { file = "west.jsonl", prompt = "text : {words} answer :", answer = "label", labels = ["yes", "no"] }
END

h2tune deploy add-member federation.toml parties west
h2tune deploy settings parties/coordinator/coordinator.toml
h2tune deploy start parties/coordinator/coordinator.toml > coordinator.log 2>&1 &
for name in north south west; do h2tune deploy start parties/members/$name/member.toml > $name.log 2>&1 & done
wait %1
kill %2 %3 %4
cat coordinator.log
h2tune deploy verify parties/coordinator/run --key parties/coordinator/audit.pub
for name in north south west; do h2tune deploy verify parties/members/$name/private --key parties/members/$name/node.pub; done
cat parties/coordinator/status.prom
