from .activation_patching import Patching, patch_models
from .attribution_error import AttributionError, attribution_error
from .attribution_patching import Attribution, attribution_patching
from .components import Component
from .head_effects import HeadLinks, head_links
from .neuron_patching import Neuron, NeuronPatching, choose_neurons, patch_neurons
from .recovery import Outcomes, foils, logit_difference, recovery, score_outcomes
from .runner import effects
from .steering import Steering, steer
from .steering_directions import Direction, steering_direction, steering_directions

__all__ = [
    "Attribution",
    "AttributionError",
    "Component",
    "Direction",
    "HeadLinks",
    "Neuron",
    "NeuronPatching",
    "Outcomes",
    "Patching",
    "Steering",
    "attribution_error",
    "attribution_patching",
    "choose_neurons",
    "effects",
    "foils",
    "head_links",
    "logit_difference",
    "patch_models",
    "patch_neurons",
    "recovery",
    "score_outcomes",
    "steer",
    "steering_direction",
    "steering_directions",
]
