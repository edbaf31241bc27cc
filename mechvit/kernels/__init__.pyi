from . import attention_pair, attention_statistics, blocks, cache_write, jit

__all__ = ["attention_pair", "attention_statistics", "blocks", "cache_write", "jit"]
