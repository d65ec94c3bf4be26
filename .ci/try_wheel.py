"""Try an installed h2tune without extras and without the source tree: version, help, and `inspect`.

    python -m venv bare && bare/bin/pip install dist/*.whl && bare/bin/python .ci/try_wheel.py

`inspect` needs a model's config.json and tokenizer and no weights, so that nothing is downloaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

MODEL = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
FEDERATION = """
name = "tiny"
[[client]]
name = "one"
model = "./model"
rank = 4
task = { file = "rows.jsonl", prompt = "{text}", answer = "label", labels = ["yes", "no"] }
[[client]]
name = "two"
model = "./model"
rank = 8
task = { file = "rows.jsonl", prompt = "{text}", answer = "label", labels = ["yes", "no"] }
"""


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "yes": 3, "no": 4}, unk_token="[UNK]"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def main() -> None:
    """Run the commands; a command that fails ends the script with its exit code."""
    scripts = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)  # away from the source tree, so that the installed package is what runs
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text(json.dumps(MODEL))
        write_tokenizer(folder / "model")
        (folder / "rows.jsonl").write_text('{"text": "a", "label": "yes"}\n{"text": "b", "label": "no"}\n')
        (folder / "federation.toml").write_text(FEDERATION)
        for command in (
            [str(scripts / "h2tune"), "--version"],
            [sys.executable, "-m", "h2tune", "--help"],
            [str(scripts / "h2tune"), "assets", "list"],
            [str(scripts / "h2tune"), "inspect", "federation.toml"],
        ):
            print("$", *command, flush=True)
            code = subprocess.run(command, cwd=folder, check=False).returncode  # noqa: S603 - our own words
            if code:
                sys.exit(code)


if __name__ == "__main__":
    main()
