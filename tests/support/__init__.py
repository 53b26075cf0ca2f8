"""What several tests share: media files, servers and small networks made by the tests."""
