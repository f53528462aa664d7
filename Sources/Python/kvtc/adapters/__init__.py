"""Engines whose caches kvtcd keeps, a module or package for each. None of them imports its engine before it is used."""
