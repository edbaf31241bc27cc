"""The modules of a HookedViT: embedding, blocks, attention, head."""
