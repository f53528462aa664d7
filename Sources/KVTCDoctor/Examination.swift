/// All checks. None of them reads anything: each says what follows from a scene.
public struct Examination: Sendable {
    /// What was found, check by check.
    public let findings: [Finding]

    /// Examines a scene.
    public init(_ scene: Scene) {
        findings =
            scene.daemonFindings + scene.sharedFindings + scene.configurationFindings + scene.permissionFindings
            + scene.limitFindings
            + scene.groupFindings + scene.diskFindings + scene.clockFindings + scene.kernelFindings
            + scene.keeperFindings + scene.namespaceFindings + scene.profileFindings + scene.versionFindings
    }

    /// How many findings are of a severity.
    public func count(_ severity: Severity) -> Int { findings.count { $0.severity == severity } }
}
