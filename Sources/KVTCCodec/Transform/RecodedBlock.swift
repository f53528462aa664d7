import CKernels

extension PageCodec {
    /// The forms that the coded section of the `transform` mode can have.
    package enum SectionForm {
        /// Of version 1.
        case stream
        /// Of version 2, with as many states and chunks for each basis, as far as it has components for them.
        case chunks(lanes: Int, chunks: Int)
    }

    /// A block of the `transform` mode in another form, with the same codes: for tests, and to compare the forms.
    /// - Parameter block: of version 2.
    package func recoded(_ block: [UInt8], as form: SectionForm) throws(CodecError) -> [UInt8] {
        guard let profile else { throw .unsupported("a transform block needs a profile") }
        let decoder = takeDecoder()
        defer { giveBack(decoder) }
        // withUnsafeBytes forwards typed errors only through a result.
        let sections = block.withUnsafeBytes { bytes in
            Result { () throws(CodecError) in
                try decoder.open(bytes)
                let header = decoder.header!
                guard header.version == TransformSection.version else { throw .unsupported("not of version 2") }
                let allocation = try TransformSection(profile: profile).allocation(
                    UnsafeRawBufferPointer(rebasing: bytes[header.codedSection]))
                return ([UInt8](bytes[header.protectedSection]), allocation)
            }
        }
        let (protected, allocation) = try sections.get()
        let (page, rows) = (decoder.page, decoder.page.codedCount)
        let codes = zip(page.components, allocation.options).map { components, options in
            components.flatMap { place -> [Int16] in
                let option = options[(place - components.lowerBound) / TransformCoder.group]
                let octaves = option == TransformCoder.cutGroup ? 0 : TransformCoder.octaves(option)
                return (0..<rows).map { page.codes.base[place * rows + $0] >> octaves }
            }
        }
        var header = decoder.header!
        let section: [UInt8]
        switch form {
        case .stream:
            header.version = 1
            section = TransformStream(profile: profile).assemble(
                stepIndex: page.stepIndex!, allocation: allocation, codes: codes, rows: rows)
        case .chunks(let lanes, let chunks):
            section = TransformSection(profile: profile).assemble(
                stepIndex: page.stepIndex!, allocation: allocation, codes: codes, rows: rows
            ) { ChunkPlan(active: $0, lanes: lanes, upTo: chunks) }
        }
        return header.assemble(protectedSection: protected, codedSection: section)
    }
}
