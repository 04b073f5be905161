"""Names of ``tfp.distributions`` that no layer builds from features: why, and what to take instead."""

_PARTS = "it is made of other distributions, not of numbers that a network gives"
_BASE = "it is a base class"
_PROCESS = "it is a process over index points, not a family whose parameters a network gives"
_MATRIX = "its event is a matrix with constraints of its own, which no vector z and no observation x has"
_OWN = "take the family itself by its name: the layer makes its coordinates independent and repeats it for each row"
_JOINT = "take one layer for z and one for x; a VAE joins them"
_NORMAL = "take MultivariateNormalTriL, or a Normal with a network that knows the structure"

REFUSED: dict[str, tuple[str, str]] = {
    "AutoCompositeTensorDistribution": (_BASE, "take a family that derives from it"),
    "Distribution": (_BASE, "take a family that derives from it"),
    "Autoregressive": (_PARTS, "take posteriors.inverse_autoregressive, or priors.Autoregressive"),
    "BatchBroadcast": (_PARTS, _OWN),
    "BatchConcat": (_PARTS, _OWN),
    "BatchReshape": (_PARTS, _OWN),
    "Blockwise": (_PARTS, "give each block a layer"),
    "Independent": (_PARTS, _OWN),
    "Masked": (_PARTS, _OWN),
    "Sample": (_PARTS, _OWN),
    "Inflated": (_PARTS, "take ZeroInflatedNegativeBinomial"),
    "LambertWDistribution": (_PARTS, "take LambertWNormal"),
    "Mixture": (_PARTS, "take NormalMixture with num_components"),
    "MixtureSameFamily": (_PARTS, "take NormalMixture with num_components"),
    "QuantizedDistribution": (
        _PARTS,
        "take DiscretizedLogistic or DiscretizedNormal for pixels, Categorical for others",
    ),
    "TransformedDistribution": (
        _PARTS,
        "take posteriors.planar, sylvester or coupling, or register a class of its numbers",
    ),
    "HiddenMarkovModel": (_PARTS, "take a recurrent decoder with a Categorical likelihood"),
    "MarkovChain": (_PARTS, "take a recurrent decoder with a likelihood for each step"),
    "LinearGaussianStateSpaceModel": (_PARTS, _NORMAL),
    "JointDistribution": (_PARTS, _JOINT),
    "JointDistributionCoroutine": (_PARTS, _JOINT),
    "JointDistributionCoroutineAutoBatched": (_PARTS, _JOINT),
    "JointDistributionNamed": (_PARTS, _JOINT),
    "JointDistributionNamedAutoBatched": (_PARTS, _JOINT),
    "JointDistributionSequential": (_PARTS, _JOINT),
    "JointDistributionSequentialAutoBatched": (_PARTS, _JOINT),
    "GaussianProcess": (_PROCESS, "take MultivariateNormalTriL"),
    "GaussianProcessRegressionModel": (_PROCESS, "take MultivariateNormalTriL"),
    "StudentTProcess": (_PROCESS, "take StudentT"),
    "StudentTProcessRegressionModel": (_PROCESS, "take StudentT"),
    "VariationalGaussianProcess": (_PROCESS, "take MultivariateNormalTriL"),
    "DeterminantalPointProcess": (_PROCESS, "take Bernoulli"),
    "CholeskyLKJ": (_MATRIX, _NORMAL),
    "LKJ": (_MATRIX, _NORMAL),
    "WishartLinearOperator": (_MATRIX, _NORMAL),
    "WishartTriL": (_MATRIX, _NORMAL),
    "MatrixNormalLinearOperator": ("its scales are operators, not numbers", _NORMAL),
    "MatrixTLinearOperator": ("its scales are operators, not numbers", "take StudentT"),
    "MultivariateNormalLinearOperator": ("its scale is an operator, not numbers", "take MultivariateNormalTriL"),
    "MultivariateStudentTLinearOperator": ("its scale is an operator, not numbers", "take StudentT"),
    "MultivariateNormalDiagPlusLowRank": (
        "its square of a low-rank scale has no closed KL",
        "take MultivariateNormalDiagPlusLowRankCovariance with a rank",
    ),
    "Deterministic": ("it has no density", "take Normal with a small fixed scale"),
    "VectorDeterministic": ("it has no density", "take MultivariateNormalDiag with a small fixed scale_diag"),
    "Empirical": ("its draws have no gradient in the samples", "take NormalMixture with num_components"),
    "FiniteDiscrete": ("its values are no parameters", "number them from 0 and take Categorical with num_classes"),
    "FlatDirichlet": ("it has no parameters", "take Dirichlet with concentration=1.0"),
    "Bates": ("its total_count is a shape, not a number", "take PERT or Triangular"),
    "NormalInverseGaussian": ("its tailweight must exceed its skewness", "take JohnsonSU or SinhArcsinh"),
    "StoppingRatioLogistic": ("TFP gives no shapes of its parameters", "take OrderedLogistic with num_classes"),
    "PixelCNN": ("it is a network of Keras 2", "take an autoregressive decoder with a Categorical likelihood"),
    "PoissonLogNormalQuadratureCompound": ("it states no parameters", "take NegativeBinomial"),
}
