"""Errors of the api package itself. Imports no web framework: api.http.errors maps these classes to responses.

ApiError
├── SettingsError          settings_error         start-up and command line only
│   └── SecretsUnavailable   secrets_unavailable    start-up and command line only
├── CommandFailed          command_failed         command line only
│   └── CandidateWorse       candidate_worse        command line only
├── NoLabelledImages       no_labelled_images     command line only
├── DatabaseMissing        database_missing       command line only
├── RegistryMissing        registry_missing
├── VersionRejected        version_rejected
├── BadRequest             bad_request
├── HeadTooLarge           head_too_large
├── RequestTooSlow         request_too_slow
├── ShuttingDown           shutting_down
├── BodyTooLarge           body_too_large
├── UnsupportedBody        unsupported_body
│   └── UnsupportedEncoding  unsupported_encoding
├── HostNotAllowed         host_not_allowed
├── MissingFile            missing_file
├── BadForm                bad_form
├── UnsupportedGrant       unsupported_grant
├── UnauthorizedClient     unauthorized_client
├── BadInferRequest        bad_infer_request
└── ModelNotServed         model_not_served
"""

from __future__ import annotations

from typing import ClassVar

EXIT_INTERRUPTED = 130  # the status that shells report for a process killed by SIGINT


class ApiError(Exception):
    """Base of this package's errors; the message is one sentence that says what to do."""

    code: ClassVar[str]


class SettingsError(ApiError):
    """Settings are missing or unusable; each problem is one line that names a setting, never its value."""

    code = "settings_error"

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class SecretsUnavailable(SettingsError):
    """The store that SECRETS__URL names cannot be read."""

    code = "secrets_unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(f"SECRETS__URL: {reason}")


class CommandFailed(ApiError):
    """A command could not do everything that was requested."""

    code = "command_failed"


class CandidateWorse(CommandFailed):
    """A retrained model recognises fewer test images than the model that it started from."""

    code = "candidate_worse"


class NoLabelledImages(ApiError):
    """No labelled prediction has a kept image, so there is nothing to make a data set from."""

    code = "no_labelled_images"

    def __init__(self, labelled: int) -> None:
        super().__init__(
            f"None of the images of labelled predictions were kept (labelled: {labelled}). Users have to allow this "
            "(`atalaya users images`) before they send the images."
        )


class DatabaseMissing(ApiError):
    """The command needs a database that exists; only the gateway and `db init` create one."""

    code = "database_missing"

    def __init__(self, database: str) -> None:
        super().__init__(f"There is no database at {database}. Run `atalaya db init` to create it.")


class RegistryMissing(ApiError):
    """The gateway has no registry of models."""

    code = "registry_missing"

    def __init__(self) -> None:
        super().__init__("This gateway has no registry of models. Its operator can set MODEL__REGISTRY.")


class VersionRejected(ApiError):
    """A version of the registry is damaged, or not signed as required."""

    code = "version_rejected"

    def __init__(self, model: str, version: str, reason: str) -> None:
        super().__init__(
            f"{model} {version} does not pass verification ({reason}). On the server, `atalaya models verify {model} "
            f"{version}` explains why."
        )


class BadRequest(ApiError):
    """The request is not valid HTTP, or repeats the header of its credential."""

    code = "bad_request"


class HeadTooLarge(ApiError):
    """The request line and headers exceed their limits."""

    code = "head_too_large"


class RequestTooSlow(ApiError):
    """The client sends so slowly that the gateway no longer waits."""

    code = "request_too_slow"


class ShuttingDown(ApiError):
    """The gateway ends while it still handles the request."""

    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__("The gateway is shutting down. Send the request again.")


class BodyTooLarge(ApiError):
    code = "body_too_large"


class UnsupportedBody(ApiError):
    """The body has a content type that the route does not accept."""

    code = "unsupported_body"


class UnsupportedEncoding(UnsupportedBody):
    """The body is compressed (RFC 9110, section 8.4). The gateway never decompresses: a small body may become huge."""

    code = "unsupported_encoding"


class HostNotAllowed(ApiError):
    """The Host header names a host that the gateway does not serve."""

    code = "host_not_allowed"


class MissingFile(ApiError):
    code = "missing_file"


class BadForm(ApiError):
    code = "bad_form"


class UnsupportedGrant(ApiError):
    code = "unsupported_grant"


class UnauthorizedClient(ApiError):
    """An authenticated client may not do this to a token of another client."""

    code = "unauthorized_client"


class BadInferRequest(ApiError):
    """A body that is not an inference request, or is one that this server cannot serve."""

    code = "bad_infer_request"


class ModelNotServed(ApiError):
    code = "model_not_served"

    def __init__(self, name: str, version: str) -> None:
        super().__init__(f"This gateway serves the model {name} in version {version}. Request that one.")
