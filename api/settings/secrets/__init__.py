"""The sources of secrets: the environment and .env, a folder of files, AWS Secrets Manager or HashiCorp Vault."""
