from . import attention_pair, attention_statistics, blocks, cache_write, jit, sparse_products

__all__ = ["attention_pair", "attention_statistics", "blocks", "cache_write", "jit", "sparse_products"]
