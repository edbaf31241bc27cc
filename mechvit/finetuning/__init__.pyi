from .config import FinetuneConfig, ViTShape
from .finetune import check_trainable, finetune, train_from_scratch

__all__ = ["FinetuneConfig", "ViTShape", "check_trainable", "finetune", "train_from_scratch"]
