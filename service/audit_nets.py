"""The names of an audit's nets, as its result has them."""

VERSION, ORIGINAL = "version", "original"
RETRAINED, AGAIN = "retrained", "retrained_again"

# As salun_core.controls gives them; a test holds the two together.
RANDOM_MASK, NO_MASK = "random_mask", "no_mask"
DENSITY_PREFIX = "density_"
