"""How frames of speech and vectors of views become one: the paper's co-attention, and its alternatives.

``coattention``, as published: the other views give every frame of speech a weight through a ReLU.
Weights do not add up to anything, and all of them can be zero. ``softmax``: the same weights made
positive with sum one. ``mean``: no weights, the mean of all frames, and the views side by side.
``gated``: the mean too, and every number of the joined vector is multiplied by a gate between 0 and
1 that depends on all of them. Without speech there is nothing to weigh, without another view
nothing that could: the vectors there are stand side by side.
"""

import torch
from torch.nn import functional as F

GUIDED = ("coattention", "softmax")  # where other views decide about the frames of speech


def weigh_frames(scores, mask, fusion):
    """Weight of every frame of speech; padding gets none.

    Parameters
    ----------
    scores : torch.Tensor, shape (B, T'), or None
        What the other views make of each frame; None: all frames count alike, whatever the fusion.
    mask : torch.Tensor, shape (B, T')
        1.0 for speech, 0.0 for padding. A row without any speech counts as all speech.
    fusion : str
        One of ``serkit.constants.FUSIONS``.

    Returns
    -------
    torch.Tensor, shape (B, T')

    Examples
    --------
    >>> scores, mask = torch.tensor([[-1.0, 2.0, 2.0, 5.0]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    >>> weigh_frames(scores, mask, "coattention").tolist()
    [[0.0, 2.0, 2.0, 0.0]]
    >>> (6 * weigh_frames(None, mask, "mean")).round().tolist()
    [[2.0, 2.0, 2.0, 0.0]]
    """
    if scores is not None and fusion == "coattention":
        return F.relu(scores) * mask
    real = torch.where(mask.sum(dim=1, keepdim=True) > 0, mask, torch.ones_like(mask)) > 0
    flat = torch.zeros_like(mask) if scores is None else scores
    return torch.softmax(flat.masked_fill(~real, float("-inf")), dim=1)
