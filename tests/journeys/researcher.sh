# A researcher: methods side by side, a rule of one's own, a table and figures for a paper.
set -eu

cat > federation.toml <<'END'
name = "wards"

[server]
rounds = 2

[train]
local_steps = 4
batch_size = 4
learning_rate = 1e-2

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

cat > my_code.py <<'END'
def largest(increments, coverages, weights):
    which = increments.abs().argmax(0, keepdim=True)
    return increments.gather(0, which)[0]
END

h2tune inspect federation.toml
h2tune compare federation.toml --methods local,h2tune,h2tune+server.aggregation=my_code:largest --seeds 2
h2tune compare federation.toml --methods local,h2tune,h2tune+server.aggregation=my_code:largest --seeds 2 --format latex > table.tex
ls runs/wards-compare runs/wards-compare/figures
h2tune report runs/wards-compare --out wards.html
