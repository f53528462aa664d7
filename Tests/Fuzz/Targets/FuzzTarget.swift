/// What can be fuzzed. A target takes any bytes and traps where a promise is broken. It first puts the checksums right that
/// no fuzzer can guess, so that what lies behind them is reached without any switch in the product.
package enum FuzzTarget: String, CaseIterable, Sendable {
    case frames, blocks, profiles, safetensors, segments, arenas, shared, answers

    /// Runs the target on one input.
    package func run(_ input: UnsafeRawBufferPointer) {
        switch self {
        case .frames: Frames.run(input)
        case .blocks: Blocks.run(input)
        case .profiles: Profiles.run(input)
        case .safetensors: SafetensorsFiles.run(input)
        case .segments: Segments.run(input)
        case .arenas: Arenas.run(input)
        case .shared: SharedValues.run(input)
        case .answers: Answers.run(input)
        }
    }
}
