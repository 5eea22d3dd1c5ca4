"""Losses: functions of one ``Scored`` batch and keyword-only options that return a scalar tensor.

``table`` names them. Where a batch is spread over several devices, every loss is written so that the mean of the
devices' losses is the loss of the whole batch, and so is the gradient that DistributedDataParallel averages:

* Losses of a query's own candidates (``listwise``, ``pointwise``, ``triplet``, ``margin-mse``, ``distillation``,
  ``diff-kendall``, ``rank-distillation``, ``adversarial``) and ``l1`` are means over queries or texts: nothing to do.
* Losses of all documents of the batch (``ranking``, ``tct``) need ``scores`` against the documents of all devices,
  which ``gather_documents`` of ``training.trainer.gathering`` collects with their gradients. ``ranking`` with
  ``symmetric`` gathers the scores of the other devices' queries itself.
* Losses that are not linear in the mean over texts (``flops``, ``idf-flops``, ``df-flops``, ``spread-out``) average
  or gather over devices themselves: the square of a mean is not the mean of the squares.

The devices' batches are of one size.
"""
