// swift-tools-version: 6.2
import PackageDescription

// The C kernels are hot loops whose vectorisation matters more than their build time.
let kernelFlags: [CSetting] = [.unsafeFlags(["-O3", "-fno-math-errno", "-ffp-contract=off", "-Wall", "-Wextra"])]
let swiftFlags: [SwiftSetting] = [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]

func systemLibrary(_ name: String, _ pkgConfig: String, apt package: String) -> Target {
    .systemLibrary(name: name, path: "Sources/\(name)", pkgConfig: pkgConfig, providers: [.apt([package])])
}

func module(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: swiftFlags)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies + ["TestSupport"], swiftSettings: swiftFlags)
}

let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let heap: Target.Dependency = .product(name: "HeapModule", package: "swift-collections")
let deque: Target.Dependency = .product(name: "DequeModule", package: "swift-collections")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")

let package = Package(
    name: "kvtcd",
    products: [
        .executable(name: "kvtcd", targets: ["kvtcd"]),
        .executable(name: "kvtcctl", targets: ["kvtcctl"]),
        .executable(name: "kvtc-bench", targets: ["Benchmarks"]),
        .library(name: "KVTCCodec", targets: ["KVTCCodec", "KVTCModel"]),
        .library(name: "kvtc", type: .dynamic, targets: ["KVTCLibrary"]),
        .library(name: "KVTCClient", targets: ["KVTCClient", "KVTCModel"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ],
    targets: [
        systemLibrary("CLZ4", "liblz4", apt: "liblz4-dev"),
        systemLibrary("CSystemd", "libsystemd", apt: "libsystemd-dev"),
        systemLibrary("CXXHash", "libxxhash", apt: "libxxhash-dev"),
        systemLibrary("CDeflate", "libdeflate", apt: "libdeflate-dev"),
        systemLibrary("CMicroHTTPD", "libmicrohttpd", apt: "libmicrohttpd-dev"),
        systemLibrary("CCrypto", "libcrypto", apt: "libssl-dev"),
        systemLibrary("CSSL", "libssl", apt: "libssl-dev"),
        .target(name: "CKernels", cSettings: kernelFlags),
        .target(name: "CLinux"),
        .target(name: "COpenBLAS", cSettings: kernelFlags),

        module("KVTCModel", []),
        module("KVTCCodec", ["KVTCModel", "CKernels", "CLZ4", "CXXHash", "CDeflate", "CCrypto"]),
        module("KVTCProtocol", ["KVTCModel"]),
        module("KVTCSystem", ["CLinux", "CSystemd"]),
        module("KVTCStore", ["CLinux", "CXXHash", "KVTCSystem", heap]),
        module("KVTCShared", ["CCrypto", "CLinux", "CSSL", "KVTCCodec", "KVTCStore", "KVTCSystem", deque]),
        module("KVTCPlan", ["KVTCModel", "KVTCSystem", "KVTCStore"]),
        module("KVTCCalibration", ["KVTCModel", "KVTCCodec", "COpenBLAS", "CKernels"]),
        module("KVTCSessions", ["CCrypto", "KVTCModel", "KVTCCodec", "KVTCStore", deque]),
        module("KVTCClient", ["KVTCModel", "KVTCProtocol", "KVTCSystem"]),
        module("KVTCReplay", ["KVTCModel", "KVTCClient", "KVTCProtocol", "KVTCPlan"]),
        .target(name: "CKVTC"),
        .target(
            name: "KVTCLibrary",
            dependencies: ["CKVTC", "CCrypto", "KVTCModel", "KVTCClient", "KVTCProtocol", "KVTCSystem"],
            exclude: ["exports.map"], swiftSettings: swiftFlags,
            // The Swift runtime is linked in and hidden: engines in C see nothing of it, and one in Swift may have another.
            linkerSettings: [
                .unsafeFlags([
                    "-static-stdlib", "-l_FoundationCShims", "-l_FoundationCollections", "-Xlinker",
                    "--version-script=Sources/KVTCLibrary/exports.map", "-Xlinker", "-soname=libkvtc.so.0",
                ])
            ]),
        module("KVTCCommandLine", ["CLinux", "KVTCSystem", arguments]),
        module("KVTCMonitor", ["CMicroHTTPD", "KVTCProtocol", "KVTCSystem"]),
        module("KVTCDoctor", ["CLinux", "KVTCClient", "KVTCCodec", "KVTCProtocol", "KVTCSystem"]),
        module(
            "KVTCDaemon",
            [
                "KVTCModel", "KVTCCodec", "KVTCProtocol", "KVTCSystem", "KVTCStore", "KVTCShared", "KVTCSessions",
                deque,
                logging,
            ]),
        .executableTarget(
            name: "kvtcd", dependencies: ["KVTCDaemon", "KVTCCommandLine", "KVTCProtocol", arguments, logging],
            swiftSettings: swiftFlags),
        .executableTarget(
            name: "kvtcctl",
            dependencies: [
                "CLinux", "KVTCModel", "KVTCClient", "KVTCCommandLine", "KVTCProtocol", "KVTCSystem", "KVTCCodec",
                "KVTCCalibration", "KVTCDoctor", "KVTCMonitor", "KVTCPlan", arguments,
            ],
            swiftSettings: swiftFlags),
        .executableTarget(
            name: "ExampleWorker", dependencies: ["KVTCModel", "KVTCClient", "KVTCProtocol", "CCrypto"],
            path: "Sources/Examples/Swift", swiftSettings: swiftFlags),
        .target(name: "CPeers"),
        .executableTarget(
            name: "Benchmarks",
            dependencies: [
                "KVTCModel", "KVTCClient", "KVTCProtocol", "KVTCSystem", "KVTCCodec", "KVTCStore", "KVTCCalibration",
                "KVTCPlan", "KVTCReplay", "CKernels", "COpenBLAS", "CPeers", arguments,
            ],
            swiftSettings: swiftFlags),

        .target(name: "CAllocationCount", path: "Tests/CAllocationCount"),
        .target(name: "CVisibleMutex", path: "Tests/CVisibleMutex"),
        .target(
            name: "TestSupport", dependencies: ["CVisibleMutex"], path: "Tests/TestSupport", swiftSettings: swiftFlags),
        .target(
            name: "FuzzTargets",
            dependencies: [
                "KVTCModel", "KVTCCodec", "KVTCProtocol", "KVTCShared", "KVTCStore", "CXXHash", "TestSupport",
            ],
            path: "Tests/Fuzz/Targets", swiftSettings: swiftFlags),
        tests("FuzzTests", ["FuzzTargets"]),
        tests(
            "KVTCCodecTests", ["KVTCModel", "KVTCCodec", "KVTCCalibration", "CKernels", "CXXHash", "CAllocationCount"]),
        tests("KVTCProtocolTests", ["KVTCModel", "KVTCProtocol"]),
        tests("KVTCSystemTests", ["KVTCSystem", "CLinux"]),
        .target(
            name: "StoreSimulation", dependencies: ["KVTCStore", "CLinux", "TestSupport"],
            path: "Tests/StoreSimulation", swiftSettings: swiftFlags),
        .executableTarget(
            name: "simulate", dependencies: ["StoreSimulation"], path: "Tests/simulate", swiftSettings: swiftFlags),
        tests("KVTCStoreTests", ["KVTCStore", "StoreSimulation", "CLinux"]),
        tests("KVTCSharedTests", ["KVTCShared", "KVTCModel", "KVTCCodec", "KVTCStore", "KVTCSystem"]),
        tests("KVTCPlanTests", ["KVTCPlan", "KVTCModel"]),
        tests("KVTCClientTests", ["KVTCModel", "KVTCClient", "KVTCProtocol", "KVTCSystem"]),
        tests("KVTCCalibrationTests", ["KVTCModel", "KVTCCalibration", "KVTCCodec", "CKernels", "COpenBLAS"]),
        .target(
            name: "SyntheticProfile", dependencies: ["KVTCModel", "KVTCCodec", "KVTCCalibration"],
            path: "Tests/SyntheticProfile", swiftSettings: swiftFlags),
        tests("KVTCDoctorTests", ["KVTCDoctor", "KVTCProtocol", "KVTCSystem"]),
        tests("KVTCMonitorTests", ["KVTCMonitor", "KVTCProtocol", "KVTCSystem"]),
        tests("KVTCSessionsTests", ["KVTCModel", "KVTCSessions", "KVTCCodec", "KVTCStore", "SyntheticProfile"]),
        tests(
            "KVTCDaemonTests",
            [
                "KVTCModel", "KVTCDaemon", "KVTCClient", "KVTCProtocol", "KVTCSystem", "KVTCStore", "KVTCCodec",
                "KVTCSessions", "KVTCPlan", "KVTCReplay", "StoreSimulation", "SyntheticProfile", logging,
            ]),
    ]
)

// The fuzzer brings its own main, so this links only as deploy/checks/fuzz builds it.
if Context.environment["KVTC_FUZZ"] == "1" {
    package.targets.append(
        .executableTarget(
            name: "kvtc-fuzz", dependencies: ["FuzzTargets"], path: "Tests/Fuzz/Main",
            swiftSettings: swiftFlags + [.unsafeFlags(["-parse-as-library"])]))
}
