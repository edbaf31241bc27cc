from .config import FinetuneConfig, ViTShape
from .finetune import finetune, train_from_scratch

__all__ = ["FinetuneConfig", "ViTShape", "finetune", "train_from_scratch"]
