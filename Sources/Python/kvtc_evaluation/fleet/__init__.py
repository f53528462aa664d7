"""Machines that share pages: two kvtcd and a real cluster of Redis or Valkey, and everything that can go wrong between them."""
