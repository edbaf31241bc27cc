from . import attention_pair, attention_statistics, blocks, jit

__all__ = ["attention_pair", "attention_statistics", "blocks", "jit"]
