"""The parts that helix-train offers, from losses to metrics, as records. Imports no torch."""

from __future__ import annotations

from helix_kernel import Component

_CALLBACKS = "helix_train.callbacks"
_LOSSES = "helix_train.losses"
_OPTIMIZERS = "helix_train.optimizers"
_SCHEDULES = "helix_train.schedules"
_LOGGERS = "helix_train.loggers"
_METRICS = "helix_train.metrics"

LOSSES = (
    Component(
        name="cross-entropy",
        target=f"{_LOSSES}.classification:CrossEntropy",
        config=f"{_LOSSES}.config:CrossEntropyConfig",
        summary="Negative log-likelihood of integer targets under softmax",
    ),
    Component(
        name="mse",
        target=f"{_LOSSES}.regression:MSE",
        config=f"{_LOSSES}.config:MSEConfig",
        summary="Squared difference",
    ),
    Component(
        name="l1",
        target=f"{_LOSSES}.regression:L1",
        config=f"{_LOSSES}.config:L1Config",
        summary="Absolute difference",
    ),
    Component(
        name="smooth-l1",
        target=f"{_LOSSES}.regression:SmoothL1",
        config=f"{_LOSSES}.config:SmoothL1Config",
        summary="Squared difference near zero, absolute further out",
    ),
    Component(
        name="bce-with-logits",
        target=f"{_LOSSES}.classification:BCEWithLogits",
        config=f"{_LOSSES}.config:BCEWithLogitsConfig",
        summary="Binary cross-entropy of logits",
    ),
    Component(
        name="focal",
        target=f"{_LOSSES}.classification:Focal",
        config=f"{_LOSSES}.config:FocalConfig",
        summary="Cross-entropy that counts well-classified targets less",
    ),
)

OPTIMIZERS = (
    Component(
        name="sgd",
        target="torch.optim:SGD",
        config=f"{_OPTIMIZERS}.config:SGDConfig",
        summary="Gradient descent with momentum",
    ),
    Component(
        name="adam",
        target="torch.optim:Adam",
        config=f"{_OPTIMIZERS}.config:AdamConfig",
        summary="Adaptive moments (Kingma & Ba 2015)",
    ),
    Component(
        name="adamw",
        target="torch.optim:AdamW",
        config=f"{_OPTIMIZERS}.config:AdamWConfig",
        summary="Adam with decoupled weight decay (Loshchilov & Hutter 2019)",
    ),
    Component(
        name="rmsprop",
        target="torch.optim:RMSprop",
        config=f"{_OPTIMIZERS}.config:RMSpropConfig",
        summary="Gradient over its root mean square",
    ),
    Component(
        name="lion",
        target=f"{_OPTIMIZERS}.lion:Lion",
        config=f"{_OPTIMIZERS}.config:LionConfig",
        summary="Sign of an interpolated momentum (Chen et al. 2023)",
    ),
    Component(
        name="schedule-free-adamw",
        target=f"{_OPTIMIZERS}.schedule_free:ScheduleFreeAdamW",
        config=f"{_OPTIMIZERS}.config:ScheduleFreeAdamWConfig",
        summary="AdamW with an average of weights instead of a falling rate (Defazio et al. 2024)",
    ),
    Component(
        name="schedule-free-sgd",
        target=f"{_OPTIMIZERS}.schedule_free:ScheduleFreeSGD",
        config=f"{_OPTIMIZERS}.config:ScheduleFreeSGDConfig",
        summary="Gradient descent with an average of weights instead of a falling rate",
    ),
    Component(
        name="muon",
        target=f"{_OPTIMIZERS}.muon:Muon",
        config=f"{_OPTIMIZERS}.config:MuonConfig",
        summary="Orthogonal momentum for matrices, AdamW for the rest (Jordan et al. 2024)",
    ),
    Component(
        name="soap",
        target=f"{_OPTIMIZERS}.soap:SOAP",
        config=f"{_OPTIMIZERS}.config:SOAPConfig",
        summary="Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024)",
    ),
)

SCHEDULES = (
    Component(
        name="constant",
        target=f"{_SCHEDULES}.decay:Constant",
        config=f"{_SCHEDULES}.config:ConstantConfig",
        summary="The full rate throughout",
    ),
    Component(
        name="linear",
        target=f"{_SCHEDULES}.decay:Linear",
        config=f"{_SCHEDULES}.config:LinearConfig",
        summary="A straight line down to the final rate",
    ),
    Component(
        name="exponential",
        target=f"{_SCHEDULES}.decay:Exponential",
        config=f"{_SCHEDULES}.config:ExponentialConfig",
        summary="The same factor at every step, down to the final rate",
    ),
    Component(
        name="cosine",
        target=f"{_SCHEDULES}.decay:Cosine",
        config=f"{_SCHEDULES}.config:CosineConfig",
        summary="Half a cosine wave down to the final rate",
    ),
)

LOGGERS = (
    Component(
        name="csv",
        target=f"{_LOGGERS}.csv_file:CsvLogger",
        config=f"{_LOGGERS}.config:CsvConfig",
        summary="A table for spreadsheets",
    ),
    Component(
        name="mlflow",
        target=f"{_LOGGERS}.mlflow:MLflowLogger",
        config=f"{_LOGGERS}.config:MLflowConfig",
        summary="A run for an MLflow tracking server or database",
        requires=("helix-train[mlflow]",),
    ),
    Component(
        name="tensorboard",
        target=f"{_LOGGERS}.tensorboard:TensorBoardLogger",
        config=f"{_LOGGERS}.config:TensorBoardConfig",
        summary="Event files that TensorBoard shows",
        requires=("helix-train[tensorboard]",),
    ),
    Component(
        name="wandb",
        target=f"{_LOGGERS}.wandb:WandbLogger",
        config=f"{_LOGGERS}.config:WandbConfig",
        summary="A run for Weights & Biases, sent as it goes or later",
        requires=("helix-train[wandb]",),
        examples=({"mode": "offline"},),
    ),
)

METRICS = (
    Component(
        name="accuracy",
        target=f"{_METRICS}.classes:Accuracy",
        config=f"{_METRICS}.config:AccuracyConfig",
        summary="Share of targets whose class is the likeliest one",
    ),
    Component(
        name="top-k-accuracy",
        target=f"{_METRICS}.classes:TopKAccuracy",
        config=f"{_METRICS}.config:TopKAccuracyConfig",
        summary="Share of targets whose class is among the k likeliest ones",
    ),
    Component(
        name="precision",
        target=f"{_METRICS}.classes:Precision",
        config=f"{_METRICS}.config:ClassMetricConfig",
        summary="Share of the predictions of a class that were right",
    ),
    Component(
        name="recall",
        target=f"{_METRICS}.classes:Recall",
        config=f"{_METRICS}.config:ClassMetricConfig",
        summary="Share of the targets of a class that were found",
    ),
    Component(
        name="f1",
        target=f"{_METRICS}.classes:F1",
        config=f"{_METRICS}.config:ClassMetricConfig",
        summary="Harmonic mean of precision and recall",
    ),
    Component(
        name="perplexity",
        target=f"{_METRICS}.likelihood:Perplexity",
        config=f"{_METRICS}.config:MetricConfig",
        summary="Exponential of the mean negative log-likelihood of a target",
    ),
    Component(
        name="bits-per-byte",
        target=f"{_METRICS}.likelihood:BitsPerByte",
        config=f"{_METRICS}.config:BitsPerByteConfig",
        summary="Negative log-likelihood in bits of a byte of text",
    ),
    Component(
        name="mean-absolute-error",
        target=f"{_METRICS}.differences:MeanAbsoluteError",
        config=f"{_METRICS}.config:MetricConfig",
        summary="Mean of absolute differences",
    ),
    Component(
        name="mean-squared-error",
        target=f"{_METRICS}.differences:MeanSquaredError",
        config=f"{_METRICS}.config:MetricConfig",
        summary="Mean of squared differences",
    ),
)

CALLBACKS = (
    Component(
        name="ema",
        target=f"{_CALLBACKS}.ema:EMA",
        config=f"{_CALLBACKS}.config:EMAConfig",
        examples=({}, {"decay": 0.5, "every": 2, "warm_up": False}),
        summary="An exponential moving average of the weights, evaluated in their place",
    ),
    Component(
        name="early-stopping",
        target=f"{_CALLBACKS}.early_stopping:EarlyStopping",
        config=f"{_CALLBACKS}.config:EarlyStoppingConfig",
        examples=({}, {"min_delta": 10.0}),
        summary="Ends a run that no longer gets better on what is held out",
    ),
    Component(
        name="spike-guard",
        target=f"{_CALLBACKS}.spike_guard:SpikeGuard",
        config=f"{_CALLBACKS}.config:SpikeGuardConfig",
        examples=({}, {"window": 5, "warm_up": 5, "threshold": 0.1}),
        summary="Skips steps whose loss or gradient jumps, and rolls back where spikes follow each other",
    ),
    Component(
        name="lr-finder",
        target=f"{_CALLBACKS}.lr_finder:LRFinder",
        config=f"{_CALLBACKS}.config:LRFinderConfig",
        examples=({"steps": 20, "lowest": 1e-4}, {"steps": 20, "lowest": 1e-4, "apply": True}),
        summary="Tries learning rates from low to high before a run begins (Smith 2017)",
    ),
)
