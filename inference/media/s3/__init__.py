"""S3: client, ranged downloads, multipart uploads, URLs."""
