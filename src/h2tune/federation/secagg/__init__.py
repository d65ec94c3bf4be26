"""Secure aggregation: the server learns the sum of the clients' updates, and no single update.

The protocol is that of Bonawitz et al. 2017 ("Practical Secure Aggregation for Privacy-Preserving Machine Learning",
CCS 2017, figure 4) against honest-but-curious parties. docs/secure-aggregation.md lists what it protects and what not.
"""
