"""The protocols of older clients: single frames requested by number, in JSON or in binary messages."""
