"""vLLM's caches in kvtcd: a connector (`KvtcConnector`) and a tier beneath vLLM's own offloading to memory (`KvtcTier`).

    vllm serve MODEL --kv-transfer-config '{"kv_connector": "KvtcConnector", "kv_connector_module_path": "kvtc.adapters.vllm.connector",
        "kv_role": "kv_both", "kv_load_failure_policy": "recompute"}'

Both need vLLM 0.32 or newer when they are used; they are imported without it.
"""
