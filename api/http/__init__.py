"""HTTP around the routes: middleware, problem documents, the error table, uploads, forms and the OpenAPI document."""
