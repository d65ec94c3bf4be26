"""Names of the linear layers in a block, by model family; `roles.py` assigns roles with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

_LLAMA = {
    "self_attn.q_proj": "attn.q", "self_attn.k_proj": "attn.k", "self_attn.v_proj": "attn.v",
    "self_attn.o_proj": "attn.o",
    "mlp.gate_proj": "mlp.gate", "mlp.up_proj": "mlp.up", "mlp.down_proj": "mlp.down",
}  # fmt: skip
_PHI3 = {
    "self_attn.qkv_proj": "attn.qkv", "self_attn.o_proj": "attn.o",
    "mlp.gate_up_proj": "mlp.gate_up", "mlp.down_proj": "mlp.down",
}  # fmt: skip
_GPT2 = {"attn.c_attn": "attn.qkv", "attn.c_proj": "attn.o", "mlp.c_fc": "mlp.up", "mlp.c_proj": "mlp.down"}
_NEOX = {
    "attention.query_key_value": "attn.qkv", "attention.dense": "attn.o",
    "mlp.dense_h_to_4h": "mlp.up", "mlp.dense_4h_to_h": "mlp.down",
}  # fmt: skip
_FALCON = {path.replace("attention", "self_attention"): role for path, role in _NEOX.items()}
_OPT = {
    "self_attn.q_proj": "attn.q", "self_attn.k_proj": "attn.k", "self_attn.v_proj": "attn.v",
    "self_attn.out_proj": "attn.o", "fc1": "mlp.up", "fc2": "mlp.down",
}  # fmt: skip
_BERT = {
    "attention.self.query": "attn.q", "attention.self.key": "attn.k", "attention.self.value": "attn.v",
    "attention.output.dense": "attn.o", "intermediate.dense": "mlp.up", "output.dense": "mlp.down",
}  # fmt: skip
_DISTILBERT = {
    "attention.q_lin": "attn.q", "attention.k_lin": "attn.k", "attention.v_lin": "attn.v",
    "attention.out_lin": "attn.o", "ffn.lin1": "mlp.up", "ffn.lin2": "mlp.down",
}  # fmt: skip
_MODERNBERT = {
    "attn.Wqkv": "attn.qkv", "attn.Wo": "attn.o", "mlp.Wi": "mlp.gate_up", "mlp.Wo": "mlp.down"
}  # fmt: skip

FAMILIES: dict[str, dict[str, str]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"), _LLAMA),
    **dict.fromkeys(("falcon", "bloom"), _FALCON),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "phi3": _PHI3, "gpt2": _GPT2, "gpt_neox": _NEOX, "opt": _OPT,
    "distilbert": _DISTILBERT, "modernbert": _MODERNBERT,
}  # fmt: skip
"""Path within a block → role, by `config.model_type`."""

ANYWHERE = {
    "attn.q": "q q_proj q_lin q_linear query query_proj wq to_q",
    "attn.k": "k k_proj k_lin k_linear key key_proj wk to_k",
    "attn.v": "v v_proj v_lin v_linear value value_proj wv to_v",
    "attn.qkv": "qkv qkv_proj qkv_lin query_key_value wqkv w_pack c_attn",
    "attn.o": "o_proj out_lin to_out",
    "mlp.gate": "gate_proj wi_0",
    "mlp.up": "up_proj fc1 fc_in c_fc lin1 linear1 dense_h_to_4h intermediate.dense ffn wi wi_1 w1 w3",
    "mlp.gate_up": "gate_up_proj",
    "mlp.down": "down_proj fc2 fc_out c_proj lin2 linear2 dense_4h_to_h output.dense ffn_output wo w2",
}
_IN_ATTENTION = {"attn.qkv": "in_proj", "attn.o": "o wo out_proj out dense output.dense c_proj proj"}


def _by_word(table: Mapping[str, str]) -> dict[str, str]:
    return {word: role for role, words in table.items() for word in words.split()}


_WORDS = {False: _by_word(ANYWHERE), True: _by_word(ANYWHERE) | _by_word(_IN_ATTENTION)}


def role_by_words(path: str, siblings: Collection[str]) -> str | None:
    """Return the role that a module's name suggests in any family, or None.

    Args:
        path: Path within the block, such as "attention.output.dense".
        siblings: All paths of linear layers in the block.
    """
    parent, _, leaf = path.lower().rpartition(".")
    if leaf == "w1" and any(other.lower() == path.lower()[:-1] + "3" for other in siblings):
        return "mlp.gate"  # in Llama's original names w1 is the gate, w3 up and w2 down
    words = _WORDS[in_attention(path)]
    return words.get(f"{parent.rpartition('.')[2]}.{leaf}") or words.get(leaf)


def in_attention(path: str) -> bool:
    """Return whether a path within a block goes through an attention module."""
    parent = path.lower().rpartition(".")[0]
    return "attn" in parent or "attention" in parent
