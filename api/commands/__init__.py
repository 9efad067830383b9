"""The subcommands of `atalaya`, one file per subject."""
