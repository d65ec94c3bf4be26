"""Secure aggregation: the server learns the sum of what members learned, and no member's own part of it.

The protocol is that of Bonawitz et al. 2017 ("Practical Secure Aggregation for Privacy-Preserving Machine Learning",
CCS 2017, figure 4) against honest-but-curious parties. docs/secure-aggregation.md says what it protects and what not.
"""
