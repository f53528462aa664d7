"""Engines whose caches kvtcd keeps, a module or package for each, and what they share.

What they share imports no engine. ``sessions`` opens a session for a described cache and checks that both sides mean the same
bytes. ``transfer`` moves pages, for engines that name and place them themselves: it waits no longer than a deadline and does not
raise. ``codec`` says who codes what is moved: the daemon, or ``device``, on the GPU that holds the cache. ``keyed`` moves pages that an
engine names, a batch at a time, with a daemon that may come and go; ``options`` is what users set of an adapter, ``weights`` which
files a model is. ``prompts`` keeps and restores the cache of a whole prompt, for an ``engine.Worker``. ``background`` runs either
beside the engine.
"""
