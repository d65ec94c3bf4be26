"""Settings that do not go with differential privacy."""

from __future__ import annotations

from h2tune.config.sections import SharedConfig
from h2tune.errors import H2TuneError


def check_noise(config: SharedConfig) -> None:
    """Refuse settings under which the noise would not protect what it should.

    Raises:
        H2TuneError: What is wrong, under which key, and what to do.
    """
    privacy, server = config.privacy, config.server
    if privacy.noise == "none":
        if privacy.target_epsilon is not None:
            raise H2TuneError(
                "without noise there is no ε",
                where="privacy.target_epsilon",
                remedy='Set privacy.noise = "server" or "member", or leave target_epsilon out',
            )
        return
    for key, value, wanted, why in (
        ("server.strategy", server.strategy, "h2tune", "noise is built for h2tune"),
        (
            "server.aggregation",
            server.aggregation,
            "mean",
            "the influence of one client on it is not bounded",
        ),
        ("server.weighting", server.weighting, "uniform", "a weight would raise what one client can change"),
    ):
        if value != wanted:
            raise H2TuneError(
                f'does not go with {key} = "{value}": {why}',
                where="privacy.noise",
                remedy=f'Leave {key} out, or set it to "{wanted}"',
            )
    _messages(config)
    _structure(config)


def _structure(config: SharedConfig) -> None:
    """Check that masks and relations are fixed where noise does not protect them."""
    experimental, noise = config.experimental, config.privacy.noise
    if experimental.mask == "leading" and experimental.alignment == "depth":
        return
    if experimental.privacy_structure == "public" and noise == "server":
        return
    way = ', or set privacy_structure = "public" to send them' if noise == "server" else ""
    if experimental.privacy_structure == "public":
        way = ' and privacy_structure, which is for privacy.noise = "server"'
    raise H2TuneError(
        f'mask = "{experimental.mask}" and alignment = "{experimental.alignment}" are learned from data and would be '
        "sent without protection by noise",
        where="experimental",
        remedy=f"Leave mask and alignment out{way}",
    )


def _messages(config: SharedConfig) -> None:
    """Check what is sent, and what the server sees of it."""
    noise, server = config.privacy.noise, config.server
    if config.experimental.increments == "none":
        raise H2TuneError(
            'experimental.increments = "none" sends nothing that noise could protect',
            where="privacy.noise",
            remedy="Leave one out",
        )
    if config.experimental.increments == "relevance":
        raise H2TuneError(
            'does not go with experimental.increments = "relevance", whose weights depend on each client\'s update',
            where="privacy.noise",
            remedy="Leave increments out",
        )
    if noise == "member" and server.wire_dtype == "int8":
        raise H2TuneError(
            '"member" does not go with server.wire_dtype = "int8": the rounding error would be sent later, without '
            "noise of its own",
            where="privacy.noise",
            remedy='Set server.wire_dtype to "float16" or "float32"',
        )
    if noise == "server" and server.secure_aggregation:
        raise H2TuneError(
            '"server" must see each update to clip it, and with server.secure_aggregation it receives only the sum',
            where="privacy.noise",
            remedy='Set privacy.noise = "member"',
        )
