"""Every error that this library raises on purpose.

SalunError
├── InvalidInputError            something given to us is wrong; the message says got and expected
│   ├── UnsafeArtifactError      a weights file that is not plain, whole safetensors
│   ├── UnknownArchitectureError no library we know builds a net of that name
│   ├── ArchitectureMismatchError tensor names or shapes do not fit the architecture
│   ├── InvalidConfigError       config.json lacks a key or has a bad value
│   └── InvalidDataError         images, labels or splits cannot be used
├── UnlearningError              the computation went wrong; nothing may be published
│   ├── NonFiniteLossError       the loss became NaN or infinite
│   └── FrozenWeightChangedError a weight outside the mask is not bit-identical any more
└── CancelledError               the progress function asked to stop
"""


class SalunError(Exception):
    """Base of all errors of this library."""


class InvalidInputError(SalunError):
    """Something given to us is wrong; the message says what was got and what was expected."""


class UnsafeArtifactError(InvalidInputError):
    """A weights file is not plain, whole safetensors."""


class UnknownArchitectureError(InvalidInputError):
    """No library we know builds a net of that name."""


class ArchitectureMismatchError(InvalidInputError):
    """Tensor names or shapes do not fit the architecture."""


class InvalidConfigError(InvalidInputError):
    """``config.json`` lacks a key or has a bad value."""


class InvalidDataError(InvalidInputError):
    """Images, labels or splits cannot be used."""


class UnlearningError(SalunError):
    """The computation went wrong; nothing may be published."""


class NonFiniteLossError(UnlearningError):
    """The loss became NaN or infinite."""


class FrozenWeightChangedError(UnlearningError):
    """A weight outside the mask is not bit-identical any more."""


class CancelledError(SalunError):
    """The progress function asked to stop."""
