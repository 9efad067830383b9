"""The allow-list of classes, functions and members in a model file, for an image classifier and its training.

None of them reads a file, calls a function from the file or imports a module. `Lambda`, `TFSMLayer` and layers with
vocabularies do, so they are left out. The names are those of Keras 2.13 to 3.15.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LAYERS = _names(
    """
    InputLayer Dense EinsumDense Activation ReLU LeakyReLU PReLU ELU Softmax ThresholdedReLU Dropout
    SpatialDropout2D GaussianNoise GaussianDropout AlphaDropout ActivityRegularization Flatten Reshape Permute
    RepeatVector Identity Cropping2D ZeroPadding2D UpSampling2D Conv2D Conv2DTranspose SeparableConv2D
    DepthwiseConv2D MaxPooling2D AveragePooling2D GlobalMaxPooling2D GlobalAveragePooling2D BatchNormalization
    LayerNormalization GroupNormalization UnitNormalization RMSNormalization Add Subtract Multiply Average Maximum
    Minimum Concatenate Dot Rescaling Resizing CenterCrop Normalization RandomFlip RandomRotation RandomZoom
    RandomTranslation RandomContrast RandomBrightness RandomCrop
    """
)
_OPERATIONS = frozenset({"Add", "Subtract", "Multiply", "TrueDivide"})  # such as `image / 255`
_INITIALIZERS = _names(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal LecunUniform
    Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros
    """
)
_REGULARIZERS = frozenset({"L1", "L1L2", "L2", "OrthogonalRegularizer"})
_CONSTRAINTS = frozenset({"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"})
_OPTIMIZERS = _names(
    """
    Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion LossScaleOptimizer Nadam RMSprop SGD
    """
)
_SCHEDULES = frozenset(
    [
        "CosineDecay",
        "CosineDecayRestarts",
        "ExponentialDecay",
        "InverseTimeDecay",
        "PiecewiseConstantDecay",
        "PolynomialDecay",
    ]
)
_LOSSES = _names(
    """
    BinaryCrossentropy BinaryFocalCrossentropy CategoricalCrossentropy CategoricalFocalCrossentropy CategoricalHinge
    CosineSimilarity Dice Hinge Huber KLDivergence LogCosh MeanAbsoluteError MeanSquaredError Poisson
    SparseCategoricalCrossentropy SquaredHinge Tversky
    """
)
_METRICS = _names(
    """
    AUC Accuracy BinaryAccuracy BinaryCrossentropy CategoricalAccuracy CategoricalCrossentropy CategoricalHinge
    CosineSimilarity F1Score FBetaScore FalseNegatives FalsePositives KLDivergence Mean MeanMetricWrapper Precision
    PrecisionAtRecall Recall RecallAtPrecision SparseCategoricalAccuracy SparseCategoricalCrossentropy
    SparseTopKCategoricalAccuracy TopKCategoricalAccuracy TrueNegatives TruePositives
    """
)
_POLICIES = frozenset({"DTypePolicy", "FloatDTypePolicy"})

_CLASSES_BY_MODULE: Mapping[str, frozenset[str]] = {
    "keras": _POLICIES | {"Sequential", "Model"},
    "keras.dtype_policies": _POLICIES,
    "keras.mixed_precision": frozenset({"Policy"}),
    "keras.models": frozenset({"Sequential", "Model", "Functional"}),
    "keras.src.models.functional": frozenset({"Functional"}),
    "keras.src.engine.functional": frozenset({"Functional"}),
    "keras.layers": _LAYERS,
    "keras.src.ops.numpy": _OPERATIONS,
    "keras.initializers": _INITIALIZERS,
    "keras.regularizers": _REGULARIZERS,
    "keras.constraints": _CONSTRAINTS,
    "keras.optimizers": _OPTIMIZERS,
    "keras.optimizers.schedules": _SCHEDULES,
    "keras.losses": _LOSSES,
    "keras.metrics": _METRICS,
}
_ACTIVATIONS = _names(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear
    log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus
    sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold
    """
)
_FUNCTIONS_OF_TRAINING = _names(
    """
    binary_accuracy binary_crossentropy binary_focal_crossentropy categorical_accuracy categorical_crossentropy
    categorical_focal_crossentropy categorical_hinge cosine_similarity dice hinge huber kl_divergence log_cosh
    mean_absolute_error mean_squared_error poisson sparse_categorical_accuracy sparse_categorical_crossentropy
    sparse_top_k_categorical_accuracy squared_hinge top_k_categorical_accuracy tversky
    """
)
_FUNCTIONS_BY_MODULE: Mapping[str, frozenset[str]] = {
    "builtins": _ACTIVATIONS | _FUNCTIONS_OF_TRAINING,
    "keras.activations": _ACTIVATIONS,
    "keras.losses": _FUNCTIONS_OF_TRAINING,
    "keras.metrics": _FUNCTIONS_OF_TRAINING,
}
# HDF5 files contain class names without a module. Keras 2.11 to 2.13 registered its optimizers as custom objects.
_NAMES_WITHOUT_MODULE = frozenset[str]().union(*_CLASSES_BY_MODULE.values()) | {
    f"Custom>{name}" for name in _OPTIMIZERS
}

# Members of serialised objects and models, and of their records of shapes and training.
_STRUCTURE = _names(
    """
    module class_name config registered_name shared_object_id build_config compile_config name inbound_nodes layers
    input_layers output_layers build_input_shape args kwargs keras_history shape mask training inputs input_shape
    shapes_dict keras_version backend optimizer optimizer_config loss loss_weights metrics weighted_metrics
    run_eagerly steps_per_execution jit_compile auto_scale_loss is_legacy_optimizer sample_weight_mode
    """
)
_LAYER_MEMBERS = _names(
    """
    activation activity_regularizer alpha alpha_constraint alpha_initializer alpha_regularizer antialias autocast
    axes axis batch_input_shape batch_shape batch_size beta_constraint beta_initializer beta_regularizer bias_axes
    bias_constraint bias_initializer bias_regularizer bounding_box_format center crop_to_aspect_ratio cropping
    data_format depth_multiplier depthwise_constraint depthwise_initializer depthwise_regularizer dilation_rate dims
    dtype epsilon equation factor fill_mode fill_value filters gamma_constraint gamma_initializer gamma_regularizer
    groups height height_factor interpolation invert keepdims kernel_constraint kernel_initializer
    kernel_regularizer kernel_size l1 l2 max_value mean mode momentum moving_mean_initializer
    moving_variance_initializer n negative_slope noise_shape normalize offset optional output_padding output_shape
    pad_to_aspect_ratio padding pointwise_constraint pointwise_initializer pointwise_regularizer pool_size
    quantization_config ragged rate renorm renorm_clipping renorm_momentum scale seed shared_axes size sparse stddev
    strides synchronized target_shape theta threshold trainable units use_bias value_range variance width
    width_factor distribution gain input_axes maxval minval output_axes value min_value source_name
    """
)
_TRAINING_MEMBERS = _names(
    """
    amsgrad beta beta_1 beta_2 beta_2_decay centered clip_threshold clipnorm clipvalue dynamic_growth_steps
    ema_momentum ema_overwrite_frequency epsilon_1 epsilon_2 global_clipnorm gradient_accumulation_steps
    initial_accumulator_value initial_scale inner_optimizer l1_regularization_strength l2_regularization_strength
    l2_shrinkage_regularization_strength learning_rate learning_rate_power loss_scale_factor nesterov relative_step
    rho use_ema warmup_steps weight_decay decay boundaries cycle decay_rate decay_steps end_learning_rate
    first_decay_steps initial_learning_rate m_mul power staircase t_mul values warmup_target apply_class_balancing
    delta fn from_logits gamma ignore_class label_smoothing reduction average class_id curve k label_weights
    multi_label num_labels num_thresholds precision recall summation_method thresholds top_k
    """
)
MEMBERS = _STRUCTURE | _LAYER_MEMBERS | _TRAINING_MEMBERS
# The model's author chooses the names of the members of these objects, which are names of inputs and outputs.
NAMED_BY_AUTHOR = frozenset({"input_layers", "output_layers", "inputs", "shapes_dict"}) | {
    "loss",
    "loss_weights",
    "metrics",
    "weighted_metrics",
}


def is_allowed_class(module: str | None, name: str) -> bool:
    """Whether the class is allowed. `module` is None if the format has no modules."""
    if module is None:
        return name in _NAMES_WITHOUT_MODULE
    return name in _CLASSES_BY_MODULE.get(module, ())


def is_allowed_function(module: str | None, name: str) -> bool:
    """Whether the activation, loss or metric with this module and name is allowed."""
    return name in _FUNCTIONS_BY_MODULE.get("builtins" if module is None else module, ())


def is_allowed_reference(member: str, name: str) -> bool | None:
    """Whether `member` may refer to an object by the text `name`; None if the member is not a reference."""
    if member == "activation":
        return name in _ACTIVATIONS
    if member == "fn":
        return name in _FUNCTIONS_OF_TRAINING
    for suffix, classes in _CLASSES_BY_SUFFIX.items():
        if member.endswith(suffix):
            return _simplify(name) in classes
    return None


def _simplify(name: str) -> str:
    return name.replace("_", "").lower()


def _simplify_all(names: Iterable[str]) -> frozenset[str]:
    return frozenset(map(_simplify, names))


_CLASSES_BY_SUFFIX: Mapping[str, frozenset[str]] = {
    "_initializer": _simplify_all(_INITIALIZERS),
    "_regularizer": _simplify_all(_REGULARIZERS),
    "_constraint": _simplify_all(_CONSTRAINTS),
}
