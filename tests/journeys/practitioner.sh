# A practitioner: two CSV files as spreadsheets save them, and an adapter at the end.
set -eu

head -3 north.csv

cat > federation.toml <<'END'
name = "wards"

[server]
rounds = 2

[train]
local_steps = 4
batch_size = 4
learning_rate = 1e-2

[basis]
texts = ["public.txt"]
count = 60

[[client]]
name = "north"
model = "./models/decoder"
rank = 4

[client.task]
file = "north.csv"
encoding = "cp1252"
prompt = "text : {words} answer :"
text = "{words}"
answer = "label"
labels = ["yes", "no"]

[[client]]
name = "south"
model = "./models/encoder"
rank = 8

[client.task]
file = "south.csv"
encoding = "cp1252"
prompt = "text : {words} answer :"
text = "{words}"
answer = "label"
labels = ["yes", "no"]
END

h2tune inspect federation.toml
h2tune run federation.toml
h2tune report runs/wards --out wards.html
h2tune predict runs/wards new.csv --client north --out predictions.csv
h2tune export runs/wards north-lora --client north
h2tune merge runs/wards south-merged --client south

cat > use.py <<'END'
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForSequenceClassification, AutoTokenizer

north = AutoPeftModelForCausalLM.from_pretrained("north-lora")
tokenizer = AutoTokenizer.from_pretrained("north-lora")
prompt = tokenizer("text : the good film answer :", return_tensors="pt")
print(north(**prompt).logits.shape)
south = AutoModelForSequenceClassification.from_pretrained("south-merged")
print(south.config.id2label)
END

python use.py
