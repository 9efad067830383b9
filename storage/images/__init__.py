"""The store of images that callers sent and allowed to be kept: encrypted, in a folder or in an S3 bucket."""
