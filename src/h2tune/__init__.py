"""h2tune: federated fine-tuning of foundation models with hybrid heterogeneity (arXiv 2507.22633)."""

__version__ = "0.1.0"
