/// Squared error of coded rows: what quantising adds to the components that are kept, and what those lack of the rows' energy,
/// or have beyond it.
///
/// Components are stored rounded, so they are not quite orthonormal: a weak one also meets a little of every strong one, and
/// many together may hold more energy than the rows do. That surplus comes back as error, where a plain difference would say
/// that a lossy coding has none, or less.
package struct CodingError: Sendable {
    private var quantisation = 0.0
    private var kept = 0.0

    /// Nothing is kept.
    package init() {}

    /// Adds components with the squared error of their codes and their own energy.
    package mutating func add(error: Double, energy: Double) {
        quantisation += error
        kept += energy
    }

    /// The error of rows of this energy.
    package func total(of energy: Double) -> Double { quantisation + abs(energy - kept) }
}
