"""The wire protocol as Python types: what a request and an answer consist of, and what they are as bytes."""
