"""Tasks: sources of examples, prompts, and scoring of answers."""

from __future__ import annotations

# Built-in tasks: name → the module that defines it, imported only when the task is used.
# The docstring of `h2tune.tasks.task` describes how to add one.
MODULES: dict[str, str] = {
    "movie_reviews": "h2tune.tasks.movie_reviews",
    "tweets": "h2tune.tasks.tweets",
    "bbc_topics": "h2tune.tasks.bbc_topics",
    "amazon_reviews": "h2tune.tasks.amazon_reviews",
    "nyt_editorials": "h2tune.tasks.nyt_editorials",
    "reuters_r8": "h2tune.tasks.reuters",
    "reuters_r52": "h2tune.tasks.reuters",
    "medical_specialties": "h2tune.tasks.medical_specialties",
    "boolq": "h2tune.tasks.boolq",
    "wordnet_nouns": "h2tune.tasks.wordnet",
    "wordnet_verbs": "h2tune.tasks.wordnet",
    "gsm_rft": "h2tune.tasks.mathinstruct",
    "aqua_rat": "h2tune.tasks.mathinstruct",
    "mathqa": "h2tune.tasks.mathinstruct",
    "sst2": "h2tune.tasks.glue",
    "qqp": "h2tune.tasks.glue",
    "qnli": "h2tune.tasks.glue",
    "sst2_generated": "h2tune.tasks.glue",
    "qqp_generated": "h2tune.tasks.glue",
    "qnli_generated": "h2tune.tasks.glue",
}
