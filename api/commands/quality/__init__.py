"""Commands that tell how good the model still is, and prepare a better one."""
