import FoundationEssentials
import Glibc
import KVTCClient
import KVTCProtocol
import KVTCSystem

/// Reads a scene from the machine that it runs on.
public struct SceneReader {
    private let socketPath: String
    private let configuration: String?
    private let timeout: Int
    private let version: String

    /// - Parameters:
    ///   - socketPath: the daemon's socket.
    ///   - configuration: the file to check; nil for that of the daemon.
    ///   - timeout: seconds to wait for the daemon.
    ///   - version: of the program that asks.
    public init(socketPath: String, configuration: String?, timeout: Int, version: String) {
        (self.socketPath, self.configuration) = (socketPath, configuration)
        (self.timeout, self.version) = (timeout, version)
    }

    /// Looks at everything once.
    public func read() -> Scene {
        var scene = Scene()
        scene.caller = Scene.Caller.current
        (scene.socket.path, scene.versions.kvtcctl) = (socketPath, version)
        (scene.socket.file, scene.socket.problem) = Scene.File.at(socketPath)
        let peer: Int32
        (scene.answer, peer) = ask()
        scene.unit = Scene.Unit.read()
        // Under systemd the peer is who made the socket.
        let pid = [peer, scene.unit?.pid ?? 0].first { $0 > 1 && Scene.Process.isDaemon($0) }
        scene.process = pid.flatMap(Scene.Process.init)
        let check = ConfigurationReader(scene, given: configuration)
        check.read(into: &scene)
        scene.directory = scene.configuration?.text("disk.directory").flatMap { $0.isEmpty ? nil : $0 }.map(
            Scene.Directory.init)
        scene.clock = Scene.Clock.current
        scene.groups = Scene.Groups(of: scene.process?.pid)
        scene.kernel = Scene.Kernel.current
        scene.profiles = profiles(scene)
        scene.versions.kvtcd = Command.run([check.program, "--version"]).map { $0.output.trimmed }
        // -P: no module of the directory that this happens to run in.
        let asked = ["python3", "-P", "-c", "import importlib.metadata as m; print(m.version('kvtc'))"]
        scene.versions.python = Command.run(asked).flatMap { $0.status == 0 ? $0.output.trimmed : nil }
        return scene
    }

    /// The daemon's report, and the process at the other end as the kernel tells it.
    private func ask() -> (Scene.Answer, pid: Int32) {
        let connection: UnixConnection
        do throws(SystemError) {
            connection = try UnixConnection.connect(to: socketPath, milliseconds: Int64(timeout) * 1000)
        } catch {
            return (.nothing(code: error.code, reason: String(cString: strerror(error.code))), 0)
        }
        let pid = connection.peer.pid
        do {
            let client = try Client(connection: connection, name: "kvtcctl doctor", timeoutSeconds: timeout)
            return (.status(try client.call(StatusRequest()).decoded()), pid)
        } catch ClientError.refused(let error) {
            return (.refused(error), pid)
        } catch let error as ClientError {
            return (.silent("\(error)".split(separator: "\n").first.map(String.init) ?? ""), pid)
        } catch {
            return (.silent("its status is of another version"), pid)
        }
    }

    private func profiles(_ scene: Scene) -> [Scene.ProfileFile] {
        let beside = scene.directory.map { $0.path + "/profiles" }
        guard
            let directory = scene.status?.profileDirectory ?? scene.configuration?.text("profiles.directory") ?? beside
        else { return [] }
        return Scene.ProfileFile.all(in: directory)
    }
}

extension String {
    /// Without white space at the ends.
    var trimmed: String {
        var text = self[...]
        while text.first?.isWhitespace == true { text.removeFirst() }
        while text.last?.isWhitespace == true { text.removeLast() }
        return String(text)
    }
}
