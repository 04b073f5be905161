"""The operations that a model may be made of: they compute from what they are given, and reach nothing else.

An operation that is not listed may be as harmless, or read a file, write one, run Python, open a connection, end the
process, or run a graph that hides in a constant. ``trust`` refuses it by its name.
"""

_NAMES = """
    Abs AccumulateNV2 Acos Acosh Add AddN AddV2 All Angle Any ApproximateEqual ArgMax ArgMin Asin Asinh Atan Atan2
    Atanh BandedTriangularSolve BatchCholesky BatchCholeskyGrad BatchFFT BatchFFT2D BatchFFT3D BatchIFFT BatchIFFT2D
    BatchIFFT3D BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchMatrixDeterminant BatchMatrixInverse BatchMatrixSolve
    BatchMatrixSolveLs BatchMatrixTriangularSolve BatchSelfAdjointEig BatchSelfAdjointEigV2 BatchSvd BesselI0
    BesselI0e BesselI1 BesselI1e BesselJ0 BesselJ1 BesselK0 BesselK0e BesselK1 BesselK1e BesselY0 BesselY1 Betainc
    Bincount BitwiseAnd BitwiseOr BitwiseXor Bucketize Cast Ceil Cholesky CholeskyGrad ClipByValue Complex
    ComplexAbs Conj Cos Cosh Cross Cumprod Cumsum CumulativeLogsumexp Dawsn DenseBincount Digamma Div DivNoNan Eig
    Einsum Equal Erf Erfc Erfinv EuclideanNorm Exp Expint Expm1 FFT FFT2D FFT3D FFTND Floor FloorDiv FloorMod
    FresnelCos FresnelSin Greater GreaterEqual HistogramFixedWidth IFFT IFFT2D IFFT3D IFFTND IRFFT IRFFT2D IRFFT3D
    IRFFTND Igamma IgammaGradA Igammac Imag Inv InvGrad Invert IsFinite IsInf IsNan LeftShift Less LessEqual Lgamma
    LinSpace Log Log1p LogMatrixDeterminant LogicalAnd LogicalNot LogicalOr Lu MatMul MatrixDeterminant
    MatrixExponential MatrixInverse MatrixLogarithm MatrixSolve MatrixSolveLs MatrixSquareRoot MatrixTriangularSolve
    Max Maximum Mean Min Minimum Mod Mul MulNoNan Ndtri Neg NextAfter NotEqual Polygamma PopulationCount Pow Prod Qr
    RFFT RFFT2D RFFT3D RFFTND RaggedBincount Range Real RealDiv Reciprocal ReciprocalGrad RightShift Rint Round
    Rsqrt RsqrtGrad SegmentMax SegmentMaxV2 SegmentMean SegmentMin SegmentMinV2 SegmentProd SegmentProdV2 SegmentSum
    SegmentSumV2 Select SelectV2 SelfAdjointEig SelfAdjointEigV2 Sigmoid SigmoidGrad Sign Sin Sinh SobolSample
    SparseBincount SparseMatMul SparseSegmentMean SparseSegmentMeanGrad SparseSegmentMeanGradV2
    SparseSegmentMeanWithNumSegments SparseSegmentSqrtN SparseSegmentSqrtNGrad SparseSegmentSqrtNGradV2
    SparseSegmentSqrtNWithNumSegments SparseSegmentSum SparseSegmentSumGrad SparseSegmentSumGradV2
    SparseSegmentSumWithNumSegments Spence Sqrt SqrtGrad Square SquaredDifference Sub Sum Svd Tan Tanh TanhGrad
    TridiagonalMatMul TridiagonalSolve TruncateDiv TruncateMod UnsortedSegmentMax UnsortedSegmentMin
    UnsortedSegmentProd UnsortedSegmentSum Xdivy Xlog1py Xlogy Zeta

    AdjustContrast AdjustContrastv2 AdjustHue AdjustSaturation ApproxTopK AvgPool AvgPool3D AvgPool3DGrad
    AvgPoolGrad BatchNormWithGlobalNormalization BatchNormWithGlobalNormalizationGrad BiasAdd BiasAddGrad BiasAddV1
    CombinedNonMaxSuppression Conv Conv2D Conv2DBackpropFilter Conv2DBackpropFilterV2 Conv2DBackpropInput
    Conv2DBackpropInputV2 Conv3D Conv3DBackpropFilter Conv3DBackpropFilterV2 Conv3DBackpropInput
    Conv3DBackpropInputV2 CropAndResize CropAndResizeGradBoxes CropAndResizeGradImage DataFormatDimMap
    DataFormatVecPermute DecodeAndCropJpeg DecodeBmp DecodeGif DecodeImage DecodeJpeg DecodePng DecodeWebP
    DepthwiseConv2dNative DepthwiseConv2dNativeBackpropFilter DepthwiseConv2dNativeBackpropInput Dilation2D
    Dilation2DBackpropFilter Dilation2DBackpropInput DrawBoundingBoxes DrawBoundingBoxesV2 Elu EluGrad EncodeJpeg
    EncodeJpegVariableQuality EncodePng ExtractGlimpse ExtractGlimpseV2 ExtractJpegShape FractionalAvgPool
    FractionalAvgPoolGrad FractionalMaxPool FractionalMaxPoolGrad FusedBatchNorm FusedBatchNormGrad
    FusedBatchNormGradV2 FusedBatchNormGradV3 FusedBatchNormV2 FusedBatchNormV3 FusedPadConv2D
    FusedResizeAndPadConv2D GenerateBoundingBoxProposals HSVToRGB ImageProjectiveTransformV2
    ImageProjectiveTransformV3 InTopK InTopKV2 IsotonicRegression L2Loss LRN LRNGrad LeakyRelu LeakyReluGrad
    LogSoftmax MaxPool MaxPool3D MaxPool3DGrad MaxPool3DGradGrad MaxPoolGrad MaxPoolGradGrad MaxPoolGradGradV2
    MaxPoolGradGradWithArgmax MaxPoolGradV2 MaxPoolGradWithArgmax MaxPoolV2 MaxPoolWithArgmax NonMaxSuppression
    NonMaxSuppressionV2 NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 NonMaxSuppressionWithOverlaps
    NthElement RGBToHSV Relu Relu6 Relu6Grad ReluGrad ResizeArea ResizeBicubic ResizeBicubicGrad ResizeBilinear
    ResizeBilinearGrad ResizeNearestNeighbor ResizeNearestNeighborGrad ScaleAndTranslate ScaleAndTranslateGrad Selu
    SeluGrad Softmax SoftmaxCrossEntropyWithLogits Softplus SoftplusGrad Softsign SoftsignGrad
    SparseSoftmaxCrossEntropyWithLogits StatelessSampleDistortedBoundingBox TopK TopKV2

    AsString BatchMatrixBandPart BatchMatrixDiag BatchMatrixDiagPart BatchMatrixSetDiag BatchToSpace BatchToSpaceND
    Bitcast BroadcastArgs BroadcastGradientArgs BroadcastTo Concat ConcatOffset ConcatV2 ConjugateTranspose Const
    DecodeBase64 DepthToSpace Dequantize Diag DiagPart EditDistance EmptyTensorList EncodeBase64 EnsureShape
    ExpandDims ExtractImagePatches ExtractVolumePatches FakeQuantWithMinMaxArgs FakeQuantWithMinMaxArgsGradient
    FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsGradient FakeQuantWithMinMaxVarsPerChannel
    FakeQuantWithMinMaxVarsPerChannelGradient Fill Fingerprint Gather GatherNd GatherV2 Identity IdentityN
    InvertPermutation ListDiff LowerBound MatrixBandPart MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3
    MatrixDiagV2 MatrixDiagV3 MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MirrorPad MirrorPadGrad OneHot OnesLike
    Pack Pad PadV2 Placeholder PlaceholderV2 PlaceholderWithDefault PreventGradient QuantizeAndDequantize
    QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 QuantizeAndDequantizeV4Grad QuantizeV2
    RaggedCross RaggedFillEmptyRows RaggedFillEmptyRowsGrad RaggedGather RaggedRange RaggedTensorToSparse
    RaggedTensorToTensor Rank ReduceJoin RegexFullMatch RegexReplace Reshape Reverse ReverseSequence ReverseV2
    ScatterNd ScatterNdNonAliasingAdd Shape ShapeN Size Slice SpaceToBatch SpaceToBatchND SpaceToDepth SparseAdd
    SparseAddGrad SparseConcat SparseCross SparseCrossHashed SparseCrossV2 SparseDenseCwiseAdd SparseDenseCwiseDiv
    SparseDenseCwiseMul SparseFillEmptyRows SparseFillEmptyRowsGrad SparseReduceMax SparseReduceMaxSparse
    SparseReduceSum SparseReduceSumSparse SparseReorder SparseReshape SparseSlice SparseSliceGrad SparseSoftmax
    SparseSparseMaximum SparseSparseMinimum SparseSplit SparseTensorDenseAdd SparseTensorDenseMatMul SparseToDense
    Split SplitV Squeeze StaticRegexFullMatch StaticRegexReplace StopGradient StridedSlice StridedSliceGrad
    StringFormat StringJoin StringLength StringLower StringNGrams StringSplit StringSplitV2 StringStrip
    StringToHashBucket StringToHashBucketFast StringToHashBucketStrong StringUpper Substr TensorListConcat
    TensorListConcatLists TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGather
    TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack TensorListPushBackBatch
    TensorListReserve TensorListResize TensorListScatter TensorListScatterIntoExistingList TensorListScatterV2
    TensorListSetItem TensorListSplit TensorListStack TensorScatterAdd TensorScatterMax TensorScatterMin
    TensorScatterSub TensorScatterUpdate TensorStridedSliceUpdate Tile TileGrad Transpose UnicodeDecode
    UnicodeDecodeWithOffsets UnicodeEncode UnicodeScript UnicodeTranscode Unique UniqueV2 UniqueWithCounts
    UniqueWithCountsV2 Unpack UnravelIndex UnsortedSegmentJoin UpperBound Where ZerosLike

    Assert Case CheckNumerics CheckNumericsV2 ControlTrigger CudnnRNN CudnnRNNV2 CudnnRNNV3 DecodePaddedRaw
    DecodeRaw DeepCopy DeviceIndex DynamicPartition DynamicStitch Empty Enter Exit FakeParam GuaranteeConst If
    LoopCond Merge NextIteration NoOp ParallelDynamicStitch PartitionedCall RandomGammaGrad Roll
    StatefulPartitionedCall StatelessCase StatelessIf StatelessMultinomial StatelessParameterizedTruncatedNormal
    StatelessRandomBinomial StatelessRandomGammaV2 StatelessRandomGammaV3 StatelessRandomGetAlg
    StatelessRandomGetKeyCounter StatelessRandomGetKeyCounterAlg StatelessRandomNormal StatelessRandomNormalV2
    StatelessRandomPoisson StatelessRandomUniform StatelessRandomUniformFullInt StatelessRandomUniformFullIntV2
    StatelessRandomUniformInt StatelessRandomUniformIntV2 StatelessRandomUniformV2 StatelessShuffle
    StatelessTruncatedNormal StatelessTruncatedNormalV2 StatelessWhile StringToNumber Switch ToBool While

    AssignAddVariableOp AssignSubVariableOp AssignVariableOp DisableCopyOnRead Multinomial NonDeterministicInts
    ParameterizedTruncatedNormal RandomGamma RandomPoissonV2 RandomShuffle RandomStandardNormal RandomUniform
    RandomUniformInt ReadVariableOp ResourceGather ResourceGatherNd RngReadAndSkip RngSkip StatefulRandomBinomial
    StatefulStandardNormalV2 StatefulTruncatedNormal StatefulUniform StatefulUniformFullInt StatefulUniformInt
    TruncatedNormal VarHandleOp VarIsInitializedOp VariableShape

    HashTableV2 InitializeTableV2 LookupTableExportV2 LookupTableFindV2 LookupTableImportV2 LookupTableSizeV2
    MutableHashTableV2
"""

PURE = frozenset(_NAMES.split())
