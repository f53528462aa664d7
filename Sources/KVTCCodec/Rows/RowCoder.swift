import KVTCModel

/// A way to code the rows of a page that need not come back bit-identical. A mode has one; `Mode` lists them.
///
/// It is made for one call, with the profile that it needs.
protocol RowCoder {
    /// The coded section of the rows that are not protected; nil where it can't keep the quality asked for, or no row is left.
    /// Protects rows whose values it can't represent, and notes in the header what the decoder needs besides the section.
    func encode(_ task: inout CodingTask, memory: CoderMemory) -> [UInt8]?

    /// Reads a section into `page`, which knows by now which rows it codes: ``DecodedPage/codes`` and what belongs to them, or
    /// whole rows. Codes may be left for ``DecodedPage/decodeChunk(_:_:)``.
    func decode(
        _ section: UnsafeRawBufferPointer, _ header: BlockHeader, into page: DecodedPage
    ) throws(CodecError)
}

/// A page whose rows are to be coded.
struct CodingTask {
    /// The elements of all rows, one row after another.
    let page: UnsafeRawBufferPointer
    let quality: Quality
    /// Whether rows far stronger than any that was calibrated on are protected.
    let keepsOutliers: Bool
    /// Of the block to be; its ``BlockHeader/protected`` may grow.
    var header: BlockHeader
}

extension Mode {
    /// The coder of a mode; nil where all rows are exact.
    /// - Throws: `unsupported` where it needs a profile and there is none.
    func rowCoder(profile: Profile?, kernels: KernelTable) throws(CodecError) -> (any RowCoder)? {
        func needed() throws(CodecError) -> Profile {
            guard let profile else {
                throw .unsupported("this mode needs a profile; calibrate one, or use lossless")
            }
            return profile
        }
        return switch self {
        case .raw, .lossless: nil
        case .transform: TransformCoder(profile: try needed(), kernels: kernels)
        case .kvtc: PublishedCoder(profile: try needed(), kernels: kernels)
        case .quant8: IntegerQuantiser(bits: 8, kernels: kernels)
        case .quant4: IntegerQuantiser(bits: 4, kernels: kernels)
        }
    }
}
