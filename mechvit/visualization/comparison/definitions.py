"""Definitions of a comparison's figures in words, and the titles of the heads."""

HEAD_TITLES = {"own": "each model’s own head", "tuned": "the tuned model’s head on both", "probe": "a probe on each"}
DEFINITIONS = {
    "answers": "Accuracy: fraction of images whose label is the prediction. ECE: expected calibration error, 15 "
    "equal-width bins, L1. Bars are 95% bootstrap intervals over images.",
    "divergence": "KL(base ‖ tuned) of the two softmax outputs for the same image, in nats, averaged over images: 0 "
    "for equal outputs. Agreement: fraction of images with the same prediction. Bars are bootstrap intervals over "
    "images.",
    "flips": "Share of all images whose prediction differs between the models. Right → wrong is the negative-flip rate "
    "(arXiv:2011.09161); wrong → right less right → wrong is the change of accuracy, exactly.",
    "groups": "Accuracy of the tuned model minus the base’s on the same images; bars are paired bootstrap intervals "
    "over the images of each group.",
    "streams": "Cosine: between the residual streams of the same image in both models, in one basis, mean over tokens. "
    "CKA: linear, unbiased, of mean patch residuals; blind to rotations. Layer 0 is the embedding; between models of "
    "unequal depth, layers at the same share of each one’s depth are paired, and named by the base’s.",
    "lens": "The head reads the residual stream after each block (logit lens). Divergence: KL from the model’s final "
    "output to the lens’s, 0 at the last layer. Bands are bootstrap intervals over images.",
    "depth": "Prediction depth: the earliest layer from which on the lens predicts what the model predicts in the end; "
    "tuned minus base on the same images, in layers (negative: earlier).",
    "heads": "Tuned minus base on the same images: entropy (nats) and mean distance (patches) of each head’s "
    "attention, weight that patches give CLS; and the Jensen-Shannon distance of the two patterns (0 equal, 1 "
    "disjoint).",
    "attention": "The same, averaged over heads. Bars are bootstrap intervals over images.",
    "weights": "Frobenius norm of the change over that of the base’s weights, for each part.",
    "ranks": "Effective rank of a matrix’s change: exp of the entropy of its singular values as shares of their sum "
    "(Roy and Vetterli, 2007): 1 for one direction, the matrix’s smaller side for all alike. Matrices that did not "
    "change have none.",
    "unrelated": "Length of the mean difference of the residual streams over unrelated images, relative to the length "
    "of the base’s mean; and the share of the second moment of single differences that the mean alone makes.",
    "read": "Root mean square over classes of the change that the mean difference makes in the logits of a head, added "
    "to the base’s mean residual stream; band: jackknife. Dotted: random directions of the same covariance and length.",
    "swaps": "One model runs with a part’s weights of the other. Recovered: 1 − KL(giver ‖ mixed) / KL(giver ‖ "
    "receiver); 0 is the unchanged receiver, 1 the giver. Bars are bootstrap intervals over images.",
    "patching": "One activation, at all tokens, is taken from the other model on the same image. Recovered as above; "
    "bold where its interval excludes zero. The residual stream at all tokens holds all that came before it.",
    "line": "Weights base + alpha (tuned − base): 0 is the base, 1 the tuned model. Bands are bootstrap intervals over "
    "images.",
    "steering": "A direction is added to the base’s residual stream after one block: the mean of tuned − base on other "
    "images or, under a condition, the base’s own mean clean − shifted. Block and scale were chosen on yet others, by "
    "KL(tuned ‖ steered). Recovered as above; grey: random directions of the same length, chosen in the same way.",
    "saes": "Each model’s SAE, applied to its own activations and to the other model’s (kin only). Explained variance: "
    "1 − squared error over the variance about the mean of each dimension.",
    "sae_cosine": "Cosine between the SAE codes of the same token in the clean and in the shifted image, mean over "
    "tokens; bars are bootstrap intervals over images.",
    "conditions": "Logit lens, accuracy and attention of each model by itself, clean and under each condition.",
}
