"""Python files in a model's folder: never run and never asked about, unless the client's own table says so."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from helpers import federations
from helpers.processes import environment

CONFIGURATION = """
import os, pathlib
from transformers import LlamaConfig
pathlib.Path(os.environ["MARKER"]).write_text("it ran")
class OwnConfig(LlamaConfig):
    model_type = "own_llama"
"""
MODELING = """
from transformers import LlamaForCausalLM, LlamaForSequenceClassification
from .configuration_own import OwnConfig
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
class OwnForSequenceClassification(LlamaForSequenceClassification):
    config_class = OwnConfig
"""
CLASSES = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}


@pytest.fixture
def own(tmp_path):
    """Return a folder with a federation of which one client's model has code of its own, and its file."""
    content = federations.federation(tmp_path)
    folder = tmp_path / "models" / "own"
    shutil.copytree(content["client"][0]["model"], folder)
    (folder / "configuration_own.py").write_text(CONFIGURATION)
    (folder / "modeling_own.py").write_text(MODELING)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own_llama", "auto_map": CLASSES, "architectures": ["OwnForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    content["client"][0]["model"] = str(folder)
    return tmp_path, content


def h2tune(folder, content, *arguments: str):
    file = federations.write(folder, content)
    words = [argument.replace("FILE", str(file)) for argument in arguments]
    return subprocess.run(
        [sys.executable, "-m", "h2tune", *words],
        input="y\n" * 9,  # what a user would type if asked
        env=environment() | {"MARKER": str(folder / "marker"), "HF_MODULES_CACHE": str(folder / "modules")},
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("command", [("inspect", "FILE"), ("run", "FILE")])
def test_code_in_a_model_s_folder_is_refused_and_not_run(own, command):
    folder, content = own
    found = h2tune(folder, content, *command)
    assert found.returncode == 2
    assert "comes with Python code of its own" in found.stderr and "trust_remote_code" in found.stderr
    assert not (folder / "marker").exists() and "y/N" not in found.stdout + found.stderr


def test_code_runs_where_the_client_s_table_says_so(own):
    folder, content = own
    content["client"][0]["trust_remote_code"] = True
    found = h2tune(folder, content, "run", "FILE", "--out", "run")
    assert found.returncode == 0, found.stderr
    assert (folder / "marker").read_text() == "it ran"


def test_a_public_encoder_s_code_never_runs(own):
    """Somebody else may have named the encoder."""
    folder, content = own
    content["basis"] = {
        "kind": "anchored",
        "consensus": False,
        "texts": ["public.txt"],
        "count": 100,
        "encoder": content["client"][0]["model"],
    }
    content["client"][0]["model"] = content["client"][1]["model"]
    (folder / "public.txt").write_text("\n".join(federations.PUBLIC))
    found = h2tune(folder, content, "run", "FILE", "--out", "run")
    assert found.returncode == 2 and "comes with Python code of its own" in found.stderr
    assert not (folder / "marker").exists()


def test_the_code_of_a_type_that_transformers_knows_is_not_needed(own):
    folder, content = own
    path = folder / "models" / "own" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"model_type": "llama"}))
    found = h2tune(folder, content, "run", "FILE", "--out", "run")
    assert found.returncode == 0, found.stderr
    assert not (folder / "marker").exists()
