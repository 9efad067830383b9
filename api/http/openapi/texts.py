"""The texts of the OpenAPI document: an introduction, groups and summaries of routes, scopes, examples."""

from __future__ import annotations

from api.errors import ModelNotServed
from auth.errors import BadCredentials, InsufficientScope, KeyNotFound, MissingCredentials, UserExists
from auth.principal import Scope
from model.errors import UnsupportedImage
from monitoring.errors import ModelNotRecorded

INTRODUCTION = """\
Atalaya classifies the land use in an aerial image. Every request needs a credential:

1. Press **Authorize**, enter your user name and password, and log in. Leave the client fields empty.
   With an API key, enter the key as *APIKeyHeader* instead.
2. Open **POST /v1/predictions**, choose an image (JPEG, PNG, WebP or TIFF) and press **Execute**.

A program does the same in two requests:

```sh
curl $URL/auth/token -d grant_type=password -d username=NAME --data-urlencode 'password=PASSWORD'
curl $URL/v1/predictions -H "Authorization: Bearer $TOKEN" -F file=@image.jpg
```

Errors are problem documents (RFC 9457). Their `code` is stable, their `detail` says what to do. Quote the
`request_id` when you report a problem. A 429 or 503 says in `Retry-After` how many seconds to wait.
"""

TAGS = {
    "predictions": "Classify images, and read past predictions.",
    "inference": "The Open Inference Protocol, version 2, for clients of KServe and Triton.",
    "account": "The caller's identity, permissions, usage, password, one-time codes and images.",
    "keys": "API keys, for programs that should not log in.",
    "auth": "OAuth 2.0: tokens, their revocation and introspection, and the keys that verify them.",
    "users": "Users, their roles and their quotas. Requires `users:admin`.",
    "models": "The registry of models, and their quality. Requires `models:read`, and `models:write` for changes.",
    "monitoring": "Metrics and the audit log.",
    "health": "Whether the gateway is alive, and ready for requests.",
}

SUMMARIES = {
    "POST /v1/predictions": "Classify an image",
    "GET /v1/predictions": "List your past predictions",
    "GET /v1/predictions/{prediction_id}": "Read a past prediction",
    "POST /v1/predictions/{prediction_id}/label": "Send the true label of a prediction",
    "GET /v1/labels": "List what the model can predict, with names in English or Spanish",
    "GET /v1/models/{name}/quality": "Show a model's accuracy on live traffic",
    "GET /v1/drift": "Show which callers' images differ from those of training",
    "POST /predict-land-use": "Classify an image, with the response of the original script",
    "GET /v2": "Describe the server",
    "GET /v2/health/live": "Check that the process responds, as KServe and Triton do",
    "GET /v2/health/ready": "Check that the gateway is ready, as KServe and Triton do",
    "GET /v2/models/{model}": "Describe the inputs and outputs of the model",
    "GET /v2/models/{model}/versions/{version}": "Describe the inputs and outputs of a version",
    "GET /v2/models/{model}/ready": "Check that a model is in service",
    "GET /v2/models/{model}/versions/{version}/ready": "Check that a version is in service",
    "POST /v2/models/{model}/infer": "Classify up to 8 images",
    "POST /v2/models/{model}/versions/{version}/infer": "Classify up to 8 images with one version",
    "GET /v1/me": "Show who you are and what you may do",
    "GET /v1/me/images": "Show whether your images may be kept",
    "PUT /v1/me/images": "Allow your images to be kept, or withdraw your permission",
    "POST /v1/me/password": "Change your password",
    "POST /v1/me/totp": "Begin to use one-time codes",
    "POST /v1/me/totp/confirm": "Confirm one-time codes with a first code",
    "DELETE /v1/me/totp": "Stop using one-time codes",
    "GET /v1/usage": "Show usage and quotas of this month",
    "GET /v1/keys": "List API keys",
    "POST /v1/keys": "Create an API key",
    "GET /v1/keys/{key_id}": "Show an API key",
    "DELETE /v1/keys/{key_id}": "Revoke an API key",
    "POST /v1/keys/{key_id}/rotate": "Give an API key a new secret",
    "POST /auth/token": "Get an access token",
    "POST /auth/revoke": "Revoke a token",
    "POST /auth/introspect": "Describe a token",
    "GET /.well-known/jwks.json": "Get the public keys that verify tokens",
    "GET /.well-known/oauth-authorization-server": "Get the OAuth 2.0 metadata",
    "GET /v1/users": "List users",
    "POST /v1/users": "Create a user",
    "GET /v1/users/{user_id}": "Show a user",
    "PATCH /v1/users/{user_id}": "Change a user",
    "DELETE /v1/users/{user_id}": "Delete a user",
    "GET /v1/models": "List models",
    "GET /v1/models/{name}": "Show a model and its versions",
    "GET /v1/models/{name}/versions/{version}": "Show a version of a model",
    "GET /v1/models/{name}/status": "Show the candidate for a model, and the evidence so far",
    "GET /v1/models/{name}/history": "Read who moved the aliases of a model, when and why",
    "POST /v1/models/{name}/aliases/{alias}": "Promote a version: point an alias to it",
    "GET /v1/audit": "Read the audit log",
    "GET /metrics": "Get the metrics for Prometheus",
    "GET /livez": "Check that the process responds",
    "GET /readyz": "Check that the gateway and its dependencies are ready",
}

SCOPES = {
    Scope.PREDICT: "classify images",
    Scope.PREDICTIONS_READ: "read your past predictions",
    Scope.MODELS_READ: "list the models",
    Scope.MODELS_WRITE: "import, promote and roll back models",
    Scope.KEYS_WRITE: "create, rotate and revoke your API keys",
    Scope.USERS_ADMIN: "manage users, their roles and their quotas",
    Scope.AUDIT_READ: "read the audit log",
    Scope.METRICS_READ: "read the metrics",
}

# A typical error for each group of routes.
ERROR_EXAMPLES: dict[str, Exception] = {
    "predictions": UnsupportedImage("This is not a JPEG, PNG, WebP or TIFF image. Convert it to one of these."),
    "inference": ModelNotServed("efficientnetb0", "1.1"),
    "account": MissingCredentials("No credentials. Send `Authorization: Bearer` with a token from /auth/token."),
    "keys": KeyNotFound(),
    "auth": BadCredentials(),
    "users": UserExists("There is already a user ana. Choose another name."),
    "models": ModelNotRecorded("efficientnetb0"),
    "monitoring": InsufficientScope(Scope.METRICS_READ),
}
NOT_READY = {"status": "not ready", "checks": {"database": "DatabaseUnavailable", "ledger": "spooling", "model": "ok"}}
